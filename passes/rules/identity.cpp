// Operators that return the values of their input let every affine pass: dropout in eval mode, contiguous, detach, alias.
//
//   before   x --> dropout --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> dropout --> y
//
// Conditions  dropout does not train                                       operand_not_constant
#include <torch/csrc/jit/ir/constants.h>

#include "rules/rule.h"

namespace bnfold {

Answer identity_backward(const Site& site) {
  if (site.node->schema().argumentIndexWithName("train")) {
    const auto train = torch::jit::toIValue(site.node->namedInput("train"));
    if (!train || train->toBool()) return Decline{Reason::operand_not_constant, site.node, "the dropout is active"};
  }
  return Pass{site.node->input(0), site.affine, {}};
}

}  // namespace bnfold
