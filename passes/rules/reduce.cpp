// A mean or sum over dimensions along which the affine is constant lets it pass.
//
//   before   x --> mean(dims) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> mean(dims) --> y, and the other way
//
// Formula     mean(scale * x + shift) = scale * mean(x) + shift, and sum(scale * x + shift) = scale * sum(x) + n * shift, for n elements.
// Conditions  the dimensions are constants, and no other dtype is asked for  operand_not_constant
//             the affine is constant along them                            affine_varies_elsewhere
//             sum: shift is 0, or n is known                               shift_not_passable
#include "graph/constants.h"
#include "graph/reduction.h"
#include "knowledge/extents.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// One of a value whose rank is known, that makes no other dtype.
std::optional<Reduction> plain_reduction_of(const jit::Node* node, std::optional<int64_t> rank) {
  return rank && is_left_out(node, "dtype") ? reduction_of(node, rank) : std::nullopt;
}

// How often the shift counts in the result; nothing where that is not known.
std::optional<double> times(const Site& site, const Reduction& reduction) {
  double number = 1;
  if (site.node->kind() != jit::aten::sum || !algebra::has_shift(site.affine)) return number;
  for (const int64_t dimension : reduction.dimensions) {
    const auto size = site.known.extents.of(site.node->input(0), dimension);
    if (!size || *size == 0) return std::nullopt;
    number *= static_cast<double>(*size);
  }
  return number;
}

Decline not_passable(const Site& site) {
  return {Reason::shift_not_passable, site.node,
          "the sum adds the shift once for each element, and how many there are is not known"};
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "the reduced dimensions are not constants that fit its input"};
}

}  // namespace

Answer reduce_forward(const Site& site) {
  const auto reduction = plain_reduction_of(site.node, site.affine.rank());
  if (!reduction) return not_constant(site);
  const auto number = times(site, *reduction);
  if (!number) return not_passable(site);
  algebra::Affine affine{site.affine.scale, site.affine.shift * *number};
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
  const auto number = times(site, *reduction);
  if (!number) return not_passable(site);
  algebra::Affine affine{site.affine.scale, site.affine.shift / *number};
  for (const int64_t dimension : reduction->dimensions) {
    if (!reduction->keeps) affine = algebra::with_dimension(affine, dimension);
    if (affine.size_along(dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the reduced dimensions"};
    }
  }
  return to_input(site, affine);
}

}  // namespace bnfold
