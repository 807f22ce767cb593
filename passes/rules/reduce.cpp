// A mean or sum over dimensions along which the affine is constant lets it pass: of a sum, the scale.
//
//   before   x --> mean(dims) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> mean(dims) --> y, and the other way
//
// Formula     mean(scale * x + shift) = scale * mean(x) + shift.
// Conditions  the dimensions are constants, and no other dtype is asked for  operand_not_constant
//             the affine is constant along them                            affine_varies_elsewhere
//             sum: shift is 0                                              shift_not_passable
#include "graph/constants.h"
#include "graph/reduction.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// One of a value whose rank is known, that makes no other dtype.
std::optional<Reduction> plain_reduction_of(const jit::Node* node, std::optional<int64_t> rank) {
  return rank && is_left_out(node, "dtype") ? reduction_of(node, rank) : std::nullopt;
}

std::optional<Decline> why_not_shift(const Site& site) {
  if (site.node->kind() != jit::aten::sum || !algebra::has_shift(site.affine)) return std::nullopt;
  return Decline{Reason::shift_not_passable, site.node, "the sum adds the shift once for each element"};
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "the reduced dimensions are not constants that fit its input"};
}

}  // namespace

Answer reduce_forward(const Site& site) {
  const auto reduction = plain_reduction_of(site.node, site.affine.rank());
  if (!reduction) return not_constant(site);
  if (const auto decline = why_not_shift(site)) return *decline;
  algebra::Affine affine = site.affine;
  for (auto dimension = reduction->dimensions.rbegin(); dimension != reduction->dimensions.rend(); ++dimension) {
    if (affine.size_along(*dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the reduced dimensions"};
    }
    if (!reduction->keeps) affine = algebra::without_dimension(affine, *dimension);
  }
  return to_output(site, affine);
}

Answer reduce_backward(const Site& site) {
  const auto reduction = plain_reduction_of(site.node, site.known.ranks.of(site.node->input(0)));
  if (!reduction) return not_constant(site);
  if (const auto decline = why_not_shift(site)) return *decline;
  algebra::Affine affine = site.affine;
  for (const int64_t dimension : reduction->dimensions) {
    if (!reduction->keeps) affine = algebra::with_dimension(affine, dimension);
    if (affine.size_along(dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the reduced dimensions"};
    }
  }
  return to_input(site, affine);
}

}  // namespace bnfold
