// Elementwise operators in place: away before fusion, which wants values that nothing writes, and back again behind it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/observe.h"

namespace bnfold {

// What overwrites memory that its only reader is, makes new memory instead.
void use_new_memory(torch::jit::Graph& graph, Observations& observed);

// What is the only reader of new memory overwrites it: half the time of such an operator on a CPU goes into memory. What was observed tells
// which operand has the size and the dtype of the result, and goes over to the values that replace others.
void reuse_memory(torch::jit::Graph& graph, Observations& observed);

}  // namespace bnfold
