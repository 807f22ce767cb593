// The result of a condition takes an affine where both branches do.
//
//   before   if c: u else: v --> norm(scale, shift) --> y          after   if c: norm(scale, shift) of u else: norm(scale, shift) of v --> y
//
// A branch may return what was computed before the condition, as long as nobody but such branches reads it, or whoever does wants this affine
// too: `y = conv(x); if c: y = dropout(y)`. The planner asks for that.
#include "rules/rule.h"

namespace bnfold {

Answer branch_backward(const Site& site) {
  Pass pass;
  for (const torch::jit::Block* branch : site.node->blocks()) {
    pass.moves.push_back({const_cast<torch::jit::Value*>(branch->outputs().at(site.place)), site.affine, Way::backward});
  }
  return pass;
}

}  // namespace bnfold
