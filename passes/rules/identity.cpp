// Operators that return the values of their input let every affine pass: dropout in eval mode, contiguous, clone, detach, alias.
//
//   before   x --> dropout --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> dropout --> y, and the other way round
//
// Conditions  dropout does not train                                       operand_not_constant
#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace {

std::optional<Decline> why_not(const Site& site) {
  if (!has_argument(site.node, "train") || constant_bool(site.node->namedInput("train")) == false) return std::nullopt;
  return Decline{Reason::operand_not_constant, site.node, "the dropout is active"};
}

}  // namespace

Answer identity_backward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_input(site, site.affine);
}

Answer identity_forward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_output(site, site.affine);
}

}  // namespace bnfold
