#include "plan/layout.h"

#include <algorithm>

#include "graph/graph_walk.h"
#include "graph/order_in_memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// [N, H, W, C], seen as [N, C, H, W]
bool is_channels_last(const DimensionOrder& order) {
  const size_t rank = order.size();
  return (rank == 4 || rank == 5) && order[0] == 0 && order[1] == static_cast<int64_t>(rank) - 1 &&
         std::is_sorted(order.begin() + 2, order.end());
}

}  // namespace

std::variant<Layout, Decline> layout_of_input(const Norm& norm, std::optional<int64_t> rank) {
  if (norm.keeps_order()) return Layout::same;
  const auto found = order_in_memory(norm.input(), rank);
  if (found) return found->order.empty() || is_channels_last(found->order) ? Layout::same : Layout::contiguous;
  if (rank != 4 && rank != 5) return Layout::contiguous;
  return Decline{Reason::memory_order_unknown, norm.node(), "its input may be permuted in memory, or not"};
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
