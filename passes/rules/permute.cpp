// A reordering of dimensions lets every affine pass, reordered the other way.
//
//   before   x --> permute --> norm(scale, shift) --> y          after   norm(permute^-1 scale, permute^-1 shift) of x --> permute --> y
//
// What has one scale for each channel behind linear(x).transpose(1, -1) has it for each row of the layer's weight, whatever the rank.
//
// Conditions  the dimensions are constants                                 operand_not_constant
//             and dimensions of a value of this rank                       rank_unknown
#include <fmt/format.h>

#include "graph/permutation.h"
#include "graph/swapped_channels.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The order, or why there is none.
std::variant<std::vector<int64_t>, Decline> checked_order(const Site& site) {
  const int64_t rank = site.affine.rank();
  auto order = permutation_of(site.node, rank);
  if (!order) return Decline{Reason::operand_not_constant, site.node, "the dimensions are computed while the module runs"};
  if (is_permutation(*order, rank)) return *std::move(order);
  return Decline{Reason::rank_unknown, site.node,
                 fmt::format("its dimensions don't fit rank {}; example inputs tell the rank", rank)};
}

}  // namespace

Answer permute_backward(const Site& site) {
  if (swaps_channels_of_linear(site.node, site.affine)) {
    return to_input(site, {site.affine.scale.flatten(), site.affine.shift.flatten()});
  }
  const auto checked = checked_order(site);
  if (const auto* decline = std::get_if<Decline>(&checked)) return *decline;
  return to_input(site, algebra::before_permute(site.affine, std::get<std::vector<int64_t>>(checked)));
}

Answer permute_forward(const Site& site) {
  const auto checked = checked_order(site);
  if (const auto* decline = std::get_if<Decline>(&checked)) return *decline;
  return to_output(site, algebra::behind_permute(site.affine, std::get<std::vector<int64_t>>(checked)));
}

}  // namespace bnfold
