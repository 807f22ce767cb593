// Checks: what raises an error where it is not as it should be.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

namespace bnfold {

// At the insertion point of `graph`: if condition: raise RuntimeError(message).
void insert_raise_if(torch::jit::Graph& graph, torch::jit::Value* condition, const std::string& message);

// Whether whoever enters the block, and not an inner one alone, gets an error.
bool raises(const torch::jit::Block* block);

}  // namespace bnfold
