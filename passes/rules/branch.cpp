// The result of a condition takes an affine where both branches do.
//
//   before   if c: u else: v --> norm(scale, shift) --> y          after   if c: norm(scale, shift) of u else: norm(scale, shift) of v --> y
//
// A result that a branch leaves uninitialized is read in no run that takes this branch, and lacks nothing.
//
// A branch may return what was computed before the condition, as long as nobody but such branches reads it, or whoever does wants this affine
// too: `y = conv(x); if c: y = dropout(y)`. The planner asks for that.
#include "rules/rule.h"

namespace bnfold {

Answer branch_backward(const Site& site) {
  Pass pass;
  for (const torch::jit::Block* branch : site.node->blocks()) {
    auto* result = const_cast<torch::jit::Value*>(branch->outputs().at(site.place));
    if (result->node()->kind() != torch::jit::prim::Uninitialized) pass.moves.push_back({result, site.affine, Way::backward});
  }
  return pass;
}

}  // namespace bnfold
