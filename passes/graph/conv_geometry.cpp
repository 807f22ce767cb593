#include "graph/conv_geometry.h"

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<std::vector<int64_t>> paddings(const jit::Node* conv, const at::Tensor& weight,
                                             const std::vector<int64_t>& dilation) {
  const auto mode = constant_string(conv->namedInput("padding"));
  if (!mode) return constant_ints(conv->namedInput("padding"), dilation.size());
  std::vector<int64_t> numbers(dilation.size(), 0);
  for (size_t i = 0; i < numbers.size() && *mode == "same"; ++i) {
    const int64_t both_sides = dilation[i] * (weight.size(static_cast<int64_t>(i) + 2) - 1);
    if (both_sides % 2 != 0) return std::nullopt;
    numbers[i] = both_sides / 2;
  }
  return numbers;
}

}  // namespace

bool is_forward_conv(const jit::Node* node) {
  return is_convolution(node) && is_transposed(node) == false && node->kind() != jit::aten::_convolution_mode;
}

bool is_transposed_conv(const jit::Node* node) {
  return is_convolution(node) && is_transposed(node) == true;
}

std::optional<ConvGeometry> conv_geometry(const jit::Node* conv, const at::Tensor& weight) {
  const auto spatial = static_cast<size_t>(weight.dim() - 2);
  const auto stride = constant_ints(conv->namedInput("stride"), spatial);
  const auto dilation = constant_ints(conv->namedInput("dilation"), spatial);
  const auto padding = dilation ? paddings(conv, weight, *dilation) : std::nullopt;
  const auto groups = constant_int(conv->namedInput("groups"));
  if (!stride || !padding || !groups) return std::nullopt;
  if (!is_transposed_conv(conv)) return ConvGeometry{*stride, *padding, *dilation, *groups, {}};
  const auto output_padding = constant_ints(conv->namedInput("output_padding"), spatial);
  if (!output_padding) return std::nullopt;
  return ConvGeometry{*stride, *padding, *dilation, *groups, *output_padding};
}

}  // namespace bnfold
