// Elementwise operators overwrite memory that nobody else reads.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/facts.h"

namespace bnfold {

// What is the only reader of new memory overwrites it, where the result surely has its size and its dtype: half the time of such an operator on
// a CPU goes into memory.
void reuse_memory(torch::jit::Graph& graph, Facts& facts);

}  // namespace bnfold
