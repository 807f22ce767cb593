// What kinds of operators there are: what they do to the sizes and the memory of their first input, and which read no more than sizes.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <initializer_list>
#include <optional>
#include <string_view>

namespace bnfold {

// "conv2d": every overload of aten::conv2d but those that write into an argument out.
using OperatorNames = std::initializer_list<std::string_view>;

bool is_one_of(const torch::jit::Node* node, const OperatorNames& names);

bool is_tensor(const torch::jit::Value* value);

// Whether the value is a tensor, or None in some runs and a tensor in others.
bool may_be_tensor(const torch::jit::Value* value);

// A size that the graph reads, of a dimension that may count from the end.
struct ReadSize {
  const torch::jit::Value* tensor;
  int64_t dimension;
};

// Which size `number` is: that of x.size(1), x.shape[1], len(x), or one of a, b, c = x.shape.
std::optional<ReadSize> size_read(const torch::jit::Value* number);

// One of oneDNN's steps that LibTorch ships as operators of its own: a layer and what stands behind it.
bool is_step(const torch::jit::Node* node);

// Convolutions and transposed ones, in all spellings.
bool is_convolution(const torch::jit::Node* node);

// Whether a convolution is a transposed one; nothing where that is computed.
std::optional<bool> is_transposed(const torch::jit::Node* convolution);

// Dropout of elements and of whole channels, alpha dropout, and those in place; whether it trains is its second argument, `train`.
bool is_dropout(const torch::jit::Node* node);

// The first output has the sizes of the first input: activations, dropout, norms, casts.
bool keeps_sizes(const torch::jit::Node* node);

// The first output has the batch and channel dimensions of the first input, and as many behind them: pooling and interpolation.
bool keeps_channels(const torch::jit::Node* node);

// How many dimensions at the end such an operator works on: 2 for max_pool2d.
int64_t spatial_dimensions(const torch::jit::Node* node);

// The use reads rank, sizes, dtype or device of the value, which a fold does not change, and nothing else of it: y.type_as(y) has one that
// does, and one that does not.
bool reads_metadata_only(const torch::jit::Use& use);

// Whether the node pads with a constant; nothing where its mode is computed.
std::optional<bool> pads_with_constant(const torch::jit::Node* node);

// The node writes into the memory of `value`.
bool writes_into(const torch::jit::Node* node, const torch::jit::Value* value);

// Whether an operator adds, drops or reorders dimensions of a tensor in place, or may give a tensor of the caller's other sizes, as with out=.
bool changes_dimensions_in_place(const torch::jit::Graph& graph);

// The first output is, or may be, the memory of the first input.
bool may_return_its_input(const torch::jit::Node* node);

}  // namespace bnfold
