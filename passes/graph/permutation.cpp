#include "graph/permutation.h"

#include <algorithm>
#include <numeric>

#include "graph/constants.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<std::vector<int64_t>> with_two_swapped(std::optional<int64_t> first, std::optional<int64_t> second, int64_t rank) {
  if (!first || !second) return std::nullopt;
  const auto wrap = [rank](int64_t dimension) { return dimension < 0 ? dimension + rank : dimension; };
  const auto [low, high] = std::minmax({wrap(*first), wrap(*second)});
  if (low < 0 || high >= rank) return std::vector<int64_t>();
  std::vector<int64_t> order(rank);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[low], order[high]);
  return order;
}

}  // namespace

std::optional<std::vector<int64_t>> permutation_of(const jit::Node* node, int64_t rank) {
  if (node->kind() == jit::aten::t) return with_two_swapped(0, 1, rank);
  if (node->kind() == jit::aten::transpose) {
    return with_two_swapped(constant_int(node->input(1)), constant_int(node->input(2)), rank);
  }
  auto order = constant_ints(node->input(1));
  for (int64_t i = 0; order && i < static_cast<int64_t>(order->size()); ++i) (*order)[i] += (*order)[i] < 0 ? rank : 0;
  return order;
}

bool is_permutation(const std::vector<int64_t>& order, int64_t rank) {
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int64_t> all(rank);
  std::iota(all.begin(), all.end(), 0);
  return sorted == all;
}

}  // namespace bnfold
