// A curved activation passes a mask where it keeps 0, and else nothing.
//
//   before   gelu(x) --> norm(mask, 0) --> y          after   norm(mask, 0) of x --> gelu --> y, and the other way round
//
// Formula     mask * f(x) = f(mask * x) for scales of 0 and 1 only, where f(0) = 0: gelu, silu, tanh. sigmoid(0) is 1/2.
// Conditions  every scale is 0 or 1, every shift 0                         operator_not_affine
#include <fmt/format.h>

#include "rules/rule.h"

namespace bnfold {

namespace {

Decline not_affine(const Site& site) {
  return {Reason::operator_not_affine, site.node, fmt::format("{} is curved", site.node->kind().toUnqualString())};
}

}  // namespace

Answer zero_preserving_backward(const Site& site) {
  if (!algebra::is_mask(site.affine)) return not_affine(site);
  return to_input(site, site.affine);
}

Answer zero_preserving_forward(const Site& site) {
  if (!algebra::is_mask(site.affine)) return not_affine(site);
  return to_output(site, site.affine);
}

Answer nonlinear(const Site& site) {
  return not_affine(site);
}

}  // namespace bnfold
