// Conditions on a rank that is proven.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "knowledge/ranks.h"

namespace bnfold {

// Whether a condition asks for a rank, which take_decided_branches could decide.
bool has_rank_condition(const torch::jit::Graph& graph);

// Puts the branch that every run takes in the place of each condition that a proven rank decides, as `if x.dim() != 3: x = x.unsqueeze(0)` of a
// recurrent layer behind a norm of sequences. What raises an error stays, for it may be what proves the rank, but for the
// rank of a weight. Returns whether there was one; then `ranks` are those of another graph.
bool take_decided_branches(torch::jit::Graph& graph, const Ranks& ranks, const Ranks::StaticRank& static_rank);

}  // namespace bnfold
