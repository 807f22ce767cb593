#include "plan/dimension_order.h"

#include <algorithm>

namespace bnfold {

DimensionOrder composed(const DimensionOrder& inner, DimensionOrder outer) {
  if (outer.size() != inner.size()) return outer.empty() ? inner : outer;
  for (int64_t& dimension : outer) dimension = inner.at(dimension);
  return outer;
}

bool batch_norm_would_reorder(const DimensionOrder& order) {
  const bool in_order = std::is_sorted(order.begin(), order.end());
  const bool channels_last = (order.size() == 4 || order.size() == 5) && order[0] == 0 &&
                             order[1] == static_cast<int64_t>(order.size()) - 1 && std::is_sorted(order.begin() + 2, order.end());
  return !in_order && !channels_last;
}

}  // namespace bnfold
