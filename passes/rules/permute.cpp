// A reordering of dimensions lets every affine pass, reordered the other way.
//
//   before   x --> permute --> norm(scale, shift) --> y          after   norm(permute^-1 scale, permute^-1 shift) of x --> permute --> y
//
// What has one scale for each channel behind linear(x).transpose(1, -1) has it for each row of the layer's weight, whatever the rank.
//
// Conditions  the dimensions are constants                                 operand_not_constant
//             and dimensions of a value of this rank                       rank_unknown
#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <numeric>

#include "graph/constants.h"
#include "graph/swapped_channels.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The order that permute would be given, for a value of rank `rank`; empty where a dimension is not a constant.
std::vector<int64_t> order_of(const jit::Node* node, int64_t rank) {
  if (node->kind() == jit::aten::permute) {
    return constant_ints(node->input(1)).value_or(std::vector<int64_t>());
  }
  int64_t first = 0;
  int64_t second = 1;
  if (node->kind() != jit::aten::t) {
    const auto from = constant_int(node->input(1));
    const auto to = constant_int(node->input(2));
    if (!from || !to) return {};
    first = *from;
    second = *to;
  }
  std::vector<int64_t> order(rank);
  std::iota(order.begin(), order.end(), 0);
  const auto wrap = [rank](int64_t dimension) { return dimension < 0 ? dimension + rank : dimension; };
  if (std::max(wrap(first), wrap(second)) >= rank || std::min(wrap(first), wrap(second)) < 0) return {-1};
  std::swap(order[wrap(first)], order[wrap(second)]);
  return order;
}

// The order, or why there is none.
std::variant<std::vector<int64_t>, Decline> checked_order(const Site& site) {
  const int64_t rank = site.affine.rank();
  std::vector<int64_t> order = order_of(site.node, rank);
  if (order.empty()) return Decline{Reason::operand_not_constant, site.node, "the dimensions are computed while the module runs"};
  for (int64_t& dimension : order) dimension += dimension < 0 ? rank : 0;
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t d = 0; d < rank; ++d) {
    if (static_cast<int64_t>(sorted.size()) != rank || sorted[d] != d) {
      return Decline{Reason::rank_unknown, site.node,
                     fmt::format("its dimensions don't fit rank {}; example inputs tell the rank", rank)};
    }
  }
  return order;
}

}  // namespace

Answer permute_backward(const Site& site) {
  if (swaps_channels_of_linear(site.node, site.affine)) {
    Pass pass = to_input(site, {site.affine.scale.flatten(), site.affine.shift.flatten()});
    pass.order = {0, 2, 1};  // a norm lays out anew what has three dimensions or more
    return pass;
  }
  const auto checked = checked_order(site);
  if (const auto* decline = std::get_if<Decline>(&checked)) return *decline;
  const auto& order = std::get<std::vector<int64_t>>(checked);
  Pass pass = to_input(site, algebra::before_permute(site.affine, order));
  pass.order = order;
  return pass;
}

Answer permute_forward(const Site& site) {
  const auto checked = checked_order(site);
  if (const auto* decline = std::get_if<Decline>(&checked)) return *decline;
  return to_output(site, algebra::behind_permute(site.affine, std::get<std::vector<int64_t>>(checked)));
}

}  // namespace bnfold
