// A check that goes into the result: what nothing proves is asked while it runs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

namespace bnfold {

// At the insertion point of `graph`: if condition: raise RuntimeError(message).
void insert_raise_if(torch::jit::Graph& graph, torch::jit::Value* condition, const std::string& message);

}  // namespace bnfold
