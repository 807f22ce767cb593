// Takes a region out of a graph.
//
//   before   x --> conv(W, b) --> relu --> conv(W2, b2) --> y          after   x --> onednn_steps.run([x]) --> y
#pragma once

#include <torch/csrc/jit/api/module.h>

#include "onednn/region.h"

namespace bnfold::onednn {

// Puts what the region does into an attribute of `module`, to whose `graph`, that of a method, it belongs, and calls it in the place of the last
// node. Returns the node behind.
torch::jit::Node* extract(const Region& region, torch::jit::Module& module, torch::jit::Graph& graph);

}  // namespace bnfold::onednn
