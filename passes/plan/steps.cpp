#include "plan/steps.h"

#include <algorithm>

namespace bnfold {

namespace jit = torch::jit;

Wanted take_last(std::vector<Wanted>& all) {
  const Wanted last = std::move(all.back());
  all.pop_back();
  return last;
}

Missing take_first(std::vector<Missing>& all) {
  const auto first = std::min_element(all.begin(), all.end(), [](const Missing& one, const Missing& other) {
    const jit::Node* node = one.value->node();
    return node == other.value->node() ? one.value->offset() < other.value->offset() : node->isBefore(other.value->node());
  });
  const Missing taken = std::move(*first);
  all.erase(first);
  return taken;
}

}  // namespace bnfold
