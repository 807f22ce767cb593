// Concatenations that grow, as in a DenseNet, share one piece of memory.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/facts.h"
#include "graph/memory.h"

namespace bnfold {

// Makes the concatenations views of one tensor, into which each part is copied once. Called while no operator writes in place, before
// reuse_memory, which leaves views alone.
void share_memory_of_concatenations(torch::jit::Graph& graph, Facts& facts, const Memory& memory);

}  // namespace bnfold
