// How a convolution moves over its input.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace bnfold {

// A number for each spatial dimension, and the groups.
struct ConvGeometry {
  std::vector<int64_t> stride;
  std::vector<int64_t> padding;  // at both sides
  std::vector<int64_t> dilation;
  int64_t groups;
  std::vector<int64_t> output_padding;  // of a transposed convolution, none otherwise

  bool transposed() const { return !output_padding.empty(); }
};

// Whether `node` is a convolution that is not transposed, with the arguments of aten::convolution.
bool is_forward_conv(const torch::jit::Node* node);

// Whether `node` is a transposed convolution, with the arguments of aten::conv_transpose2d or aten::convolution.
bool is_transposed_conv(const torch::jit::Node* node);

// That of one of both with this weight, [O, I/groups, ...] or, transposed, [I, O/groups, ...]; nothing where a number is computed, or where
// the padding 'same' is more at one side.
std::optional<ConvGeometry> conv_geometry(const torch::jit::Node* conv, const at::Tensor& weight);

}  // namespace bnfold
