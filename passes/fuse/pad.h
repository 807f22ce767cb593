// Padding with zeros in front of a convolution, which can pad by itself.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace bnfold {

// Whether `node` pads with zeros, by whatever amount.
bool pads_with_zeros(const torch::jit::Node* node);

// How much such a node pads at both sides of each of the last `dimensions`, in their order; nothing where the sides differ, where it pads
// another dimension or cuts something off, or where the amount is computed.
std::optional<std::vector<int64_t>> even_padding(const torch::jit::Node* node, size_t dimensions);

}  // namespace bnfold
