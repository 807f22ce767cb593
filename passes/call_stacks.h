// The record of which calls were inlined where, which error messages print.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Lets the call stacks of all nodes of `graph` name `function`. They name the methods of the module that was flattened, which are
// gone when it is: an error raised while the graph runs would read freed memory.
void own_call_stacks(const torch::jit::Graph& graph, torch::jit::Function* function);

}  // namespace bnfold
