#include "plan/layout.h"

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

DimensionOrder composed(const DimensionOrder& inner, DimensionOrder outer) {
  if (outer.size() != inner.size()) return outer.empty() ? inner : outer;
  for (int64_t& dimension : outer) dimension = inner.at(dimension);
  return outer;
}

Layout layout_behind_view(const Norm& norm, const std::optional<DimensionOrder>& order) {
  if (norm.keeps_order() || !order || std::is_sorted(order->begin(), order->end())) return Layout::same;
  const int64_t rank = static_cast<int64_t>(order->size());
  const bool channels_last = (rank == 4 || rank == 5) && order->at(0) == 0 && order->at(1) == rank - 1 &&
                             std::is_sorted(order->begin() + 2, order->end());
  return channels_last ? Layout::same : Layout::contiguous;
}

Layout layout_behind_cut(const Norm& norm, int64_t rank) {
  return norm.keeps_order() || rank == 4 || rank == 5 ? Layout::dense : Layout::contiguous;
}

Layout layout_made_by(const Norm& norm) {
  bool contiguous = norm.node()->kind() == jit::aten::instance_norm;
  for (const jit::Block* block : norm.node()->blocks()) {
    for_each_node(block, [&contiguous](const jit::Node* node) { contiguous |= node->kind() == jit::aten::instance_norm; });
  }
  return contiguous ? Layout::contiguous : Layout::same;
}

}  // namespace bnfold
