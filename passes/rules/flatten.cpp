// Flattening lets an affine pass that is constant along the flattened dimensions.
//
//   before   x --> flatten(first, last) --> norm(scale, shift) --> y     after   norm(scale', shift') of x --> flatten(first, last) --> y
//
// Formula     scale' has size 1 in the dimensions first to last, scale in dimension first: LeViT's linear of [N, L, F], flattened to
//             [N*L, F] before its norm.
// Conditions  first and last are constants and count from the front        operand_not_constant
//             the affine does not vary along the flattened dimension       affine_varies_elsewhere
#include <torch/csrc/jit/ir/constants.h>

#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer flatten_backward(const Site& site) {
  const auto first = jit::toIValue(site.node->namedInput("start_dim"));
  const auto last = jit::toIValue(site.node->namedInput("end_dim"));
  const bool from_front = first && last && first->toInt() >= 0 && last->toInt() >= first->toInt();
  if (!from_front || first->toInt() >= site.affine.rank()) {
    return Decline{Reason::operand_not_constant, site.node, "the flattened dimensions are not given as constants from the front"};
  }
  const auto before = algebra::before_flatten(site.affine, first->toInt(), last->toInt());
  if (!before) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the flattened dimensions"};
  }
  return Pass{site.node->input(0), *before, {}};
}

}  // namespace bnfold
