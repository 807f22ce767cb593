// Conditions on a rank that is proven.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "knowledge/ranks.h"

namespace bnfold {

// Puts the branch that every run takes in the place of each condition that a proven rank decides, as `if x.dim() != 3: x = x.unsqueeze(0)` of a
// recurrent layer behind a norm of sequences. What raises an error stays, for it may be what proves the rank. Returns whether
// there was one; then `ranks` are those of another graph.
bool take_decided_branches(torch::jit::Graph& graph, const Ranks& ranks);

}  // namespace bnfold
