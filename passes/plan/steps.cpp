#include "plan/steps.h"

#include <algorithm>
#include <iterator>

namespace bnfold {

namespace jit = torch::jit;

namespace {

template <typename Step>
bool is_before(const Step& one, const Step& other) {
  const jit::Node* node = one.value->node();
  return node == other.value->node() ? one.value->offset() < other.value->offset() : node->isBefore(other.value->node());
}

}  // namespace

Wanted take_last(std::vector<Wanted>& all) {
  // Of two in the branches of one condition, neither is before the other: the newer one.
  const auto last = std::prev(std::max_element(all.rbegin(), all.rend(), is_before<Wanted>).base());
  Wanted taken = std::move(*last);
  all.erase(last);
  return taken;
}

Missing take_first(std::vector<Missing>& all) {
  const auto first = std::min_element(all.begin(), all.end(), is_before<Missing>);
  const Missing taken = std::move(*first);
  all.erase(first);
  return taken;
}

}  // namespace bnfold
