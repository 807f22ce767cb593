// A condition that is decided before the module runs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Puts what `branch` of the prim::If `condition` does into its place. The other branch goes.
void take_branch(torch::jit::Node* condition, torch::jit::Block* branch);

}  // namespace bnfold
