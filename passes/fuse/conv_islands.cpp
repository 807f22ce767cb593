#include "fuse/conv_islands.h"

#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "fuse/memory_order.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr int64_t kFewestProducts = 1 << 21;

// As aten/src/ATen/native/ConvUtils.h of LibTorch 2.15 decides for float, with one thread.
bool is_of_onednn(const ConvFusion& fusion, const std::vector<int64_t>& input) {
  const auto& weight = fusion.weight;
  const auto are_one = [](const std::vector<int64_t>& numbers) { return c10::multiply_integers(numbers) == 1; };
  const bool point =
      weight.size(-1) == 1 && weight.size(-2) == 1 && are_one(fusion.geometry.stride) && are_one(fusion.geometry.dilation);
  if (point && input[0] < 16) return false;
  return fusion.geometry.groups > 1 || (weight.size(-1) > 3 && weight.size(-2) > 3) || input[0] > 1 ||
         c10::multiply_integers(input) > 20480;
}

bool gains(const ConvFusion& fusion, const Facts& facts) {
  const auto* input = facts.example_of(fusion.conv->input(0));
  const auto* output = facts.example_of(fusion.conv->output());
  const at::Tensor& weight = fusion.weight;
  if (input == nullptr || output == nullptr || weight.dim() != 4 || weight.scalar_type() != at::kFloat) return true;
  if (is_of_onednn(fusion, *input)) return true;
  const auto& pixels = fusion.geometry.transposed() ? *input : *output;
  return pixels[0] * pixels[2] * pixels[3] * weight.numel() >= kFewestProducts;
}

class Islands {
 public:
  explicit Islands(size_t number) : island_(number) { std::iota(island_.begin(), island_.end(), 0); }

  size_t of(size_t member) const { return island_[member] == member ? member : of(island_[member]); }
  void join(size_t one, size_t other) { island_[of(one)] = of(other); }

 private:
  std::vector<size_t> island_;  // a member's own place, or that of another one of the same island
};

Islands islands_of(const std::vector<ConvFusion>& fusions) {
  std::unordered_map<const jit::Value*, std::vector<size_t>> readers;
  for (size_t i = 0; i < fusions.size(); ++i) {
    readers[fusions[i].input()].push_back(i);
    if (fusions[i].sum != nullptr) readers[fusions[i].sum->input(fusions[i].addend)].push_back(i);
  }
  Islands islands(fusions.size());
  for (size_t i = 0; i < fusions.size(); ++i) {
    for (const jit::Value* value : values_in_order_of(fusions[i].last()->output())) {
      const auto found = readers.find(value);
      if (found == readers.end()) continue;
      for (const size_t reader : found->second) islands.join(i, reader);
    }
  }
  return islands;
}

}  // namespace

std::vector<ConvFusion> take_slower_islands(std::vector<ConvFusion>& fusions, const Facts& facts) {
  const Islands islands = islands_of(fusions);
  std::unordered_set<size_t> gaining;
  for (size_t i = 0; i < fusions.size(); ++i) {
    if (gains(fusions[i], facts)) gaining.insert(islands.of(i));
  }
  std::vector<ConvFusion> faster, slower;
  for (size_t i = 0; i < fusions.size(); ++i) {
    (gaining.count(islands.of(i)) != 0 ? faster : slower).push_back(std::move(fusions[i]));
  }
  fusions = std::move(faster);
  return slower;
}

}  // namespace bnfold
