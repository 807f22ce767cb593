// The result of a condition takes an affine where both branches do.
//
//   before   if c: u else: v --> norm(scale, shift) --> y          after   if c: norm(scale, shift) of u else: norm(scale, shift) of v --> y
//
// Conditions  each branch returns what it computes itself                  value_from_other_block
#include "rules/rule.h"

namespace bnfold {

Answer branch_backward(const Site& site) {
  Pass pass;
  for (torch::jit::Block* branch : site.node->blocks()) {
    torch::jit::Value* result = branch->outputs().at(site.place);
    if (result->node()->owningBlock() != branch) {
      return Decline{Reason::value_from_other_block, site.node, "a branch returns what was computed before it"};
    }
    pass.moves.push_back({result, site.affine, Way::backward});
  }
  return pass;
}

}  // namespace bnfold
