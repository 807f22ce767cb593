// Which steps of a frozen graph oneDNN computes as one network.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

#include "graph/memory.h"

namespace bnfold::onednn {

// Nodes that may all stand in the place of the last of them, in their order. The lists that concatenations read belong to them, and are not among them.
using Region = std::vector<torch::jit::Node*>;

// The region that begins with `first`: what reads constants, values of the region, and tensors that are there before it. Nothing writes into any of
// these. It ends in front of the first node that writes, has blocks or does anything but compute, since what reads a result moves behind the region.
Region region_from(torch::jit::Node* first, const Memory& memory);

// Whether the node makes the list that one concatenation reads, and nobody else.
bool is_list_of_parts(const torch::jit::Node* node);

bool is_layer(const torch::jit::Node* node);

}  // namespace bnfold::onednn
