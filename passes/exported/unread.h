// Nodes whose results nobody reads.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold::exported {

// Takes away the operators whose results nobody reads, and which do nothing else, or write into memory that nobody reads any more. LibTorch's
// own EliminateDeadCode does not take the opaque nodes of a program, and drops its assertions.
void remove_unread(torch::jit::Graph& graph);

}  // namespace bnfold::exported
