#include "onednn/shared_parts.h"

#include <algorithm>

namespace bnfold::onednn {

namespace {

bool is_beginning(const std::vector<Value>& parts, const std::vector<Value>& whole) {
  return parts.size() <= whole.size() && std::equal(parts.begin(), parts.end(), whole.begin());
}

}  // namespace

SharedParts::SharedParts(const Description& description) {
  std::vector<const Step*> roots;
  for (auto step = description.steps().rbegin(); step != description.steps().rend(); ++step) {
    const Sizes& sizes = description.sizes_of(step->output);
    if (step->kind != Kind::concatenate || step->dimension != 1 || sizes[0] != 1 || sizes.size() < 4) continue;
    const auto root =
        std::find_if(roots.begin(), roots.end(), [&](const Step* one) { return is_beginning(step->inputs, one->inputs); });
    wholes_[step->output] = static_cast<size_t>(root - roots.begin());
    if (root != roots.end()) continue;
    roots.push_back(&*step);
    sizes_.push_back(sizes);
    channels_.emplace_back();
    int64_t channel = 0;
    for (const Value part : step->inputs) {
      slots_.emplace(part, Slot{roots.size() - 1, channel});
      channels_.back().push_back(description.sizes_of(part)[1]);
      channel += channels_.back().back();
    }
  }
}

std::optional<size_t> SharedParts::whole_of(const Step& concatenation) const {
  const auto found = wholes_.find(concatenation.output);
  return found == wholes_.end() ? std::nullopt : std::optional<size_t>(found->second);
}

std::optional<Slot> SharedParts::slot_of(Value value) const {
  const auto found = slots_.find(value);
  return found == slots_.end() ? std::nullopt : std::optional<Slot>(found->second);
}

bool SharedParts::are_multiples(size_t whole, int64_t block) const {
  return std::all_of(channels_[whole].begin(), channels_[whole].end(),
                     [block](int64_t channels) { return channels % block == 0; });
}

}  // namespace bnfold::onednn
