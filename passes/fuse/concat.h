// Concatenations that grow, as in a DenseNet, share one piece of memory.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <functional>

#include "fuse/facts.h"
#include "graph/memory.h"

namespace bnfold {

// Makes the concatenations that may lie in channels_last views of one tensor in that order, into which each part is copied once. Called
// while no operator writes in place, before reuse_memory, which leaves views alone.
void share_memory_of_concatenations(torch::jit::Graph& graph, Facts& facts, const Memory& memory,
                                    const std::function<bool(torch::jit::Value*)>& may_lie_in_channels_last);

}  // namespace bnfold
