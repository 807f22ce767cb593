// Elementwise operators in place: away before fusion, which wants values that nothing writes, and back again behind it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/facts.h"

namespace bnfold {

// What overwrites memory that its only reader is makes new memory instead, where that has the same dtype: what folding left, which knows less of
// dtypes.
void use_new_memory(torch::jit::Graph& graph, Facts& facts);

// What is the only reader of new memory overwrites it, where the result surely has its size and its dtype: half the time of such an operator on
// a CPU goes into memory.
void reuse_memory(torch::jit::Graph& graph, Facts& facts);

}  // namespace bnfold
