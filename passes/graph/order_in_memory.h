// In which order the dimensions of a value lie in memory, and how densely.
//
//   conv2d, pooling, batch_norm      contiguous or in channels_last, as the input suggests; a weight in channels_last makes that of every input
//   conv3d                           one of the two
//   relu, x * 2, u + v               as the input, or the operands, where these are dense
//   permute, transpose               the input's order, permuted
//   mean, linear, contiguous()       contiguous
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/parameter_store.h"

namespace bnfold {

// Dimension i of a value is dimension order[i] of one that is contiguous or in channels_last; empty for such a one itself.
using DimensionOrder = std::vector<int64_t>;

struct OrderInMemory {
  DimensionOrder order;
  bool
      proven;  // and it is dense; else something that it is made of comes from outside, and counts as contiguous or in channels_last
};

// That of `value`, which has `rank` dimensions; nothing where operands of a sum lie in several orders, or nothing tells how one is permuted.
std::optional<OrderInMemory> order_in_memory(const torch::jit::Value* value, std::optional<int64_t> rank);

// Whether `value` is contiguous whatever the inputs of the graph are.
bool is_contiguous(const torch::jit::Value* value);

// Whether `value` surely lies in memory in one of the orders that batch_norm makes.
bool is_dense(const torch::jit::Value* value);

// Whether the tensor, of 4 or 5 dimensions, is in channels_last, and not contiguous too.
bool is_channels_last(const at::Tensor& tensor);

// Whether `value` is in channels_last whatever the inputs of the graph are.
bool is_channels_last(const torch::jit::Value* value, const ParameterStore& store);

// Whether `addend` lies in memory as its sum with `input`, or with the norm of it, does, so that it may take the place of the sum. A sum has the order of its
// first operand. Where that is `input`, a convolution of it, or of what is elementwise in it, lies so if its weight is not in channels_last, and all does if both
// are.
bool lies_as_sum(const torch::jit::Value* addend, const torch::jit::Value* input, bool input_is_first,
                 const ParameterStore& store);

// Whether `value` may be a part of larger memory, with gaps: what overwrites it makes nothing dense.
bool is_part(const torch::jit::Value* value);

// Whether somebody may see in which order, and how densely, `value` lies in memory: its readers make new memory, of the same order, where not.
bool is_order_visible(const torch::jit::Value* value);

}  // namespace bnfold
