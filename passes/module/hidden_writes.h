// Writes that LibTorch's own passes do not see.
//
// They trust the schema of an operator, and some schemas do not say that the operator may return what it was given, as atleast_1d and einsum
// do. A write into such a result is a write into something else, and would be removed as one that nobody reads.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Lets LibTorch's passes keep them, until released.
void guard_hidden_writes(torch::jit::Graph& graph);
void release_hidden_writes(torch::jit::Graph& graph);

// Lets LibTorch's executor keep those that its dead code elimination would remove: a check that never raises reads what was written.
void read_hidden_writes(torch::jit::Graph& graph);

}  // namespace bnfold
