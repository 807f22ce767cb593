#include "graph/conv_geometry.h"

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<std::vector<int64_t>> numbers_of(const jit::Value* list, size_t length) {
  auto numbers = constant_ints(list);
  if (numbers && numbers->size() == 1) numbers->resize(length, numbers->front());
  if (!numbers || numbers->size() != length) return std::nullopt;
  return numbers;
}

std::optional<std::vector<int64_t>> paddings(const jit::Node* conv, const at::Tensor& weight,
                                             const std::vector<int64_t>& dilation) {
  const auto mode = constant_string(conv->namedInput("padding"));
  if (!mode) return numbers_of(conv->namedInput("padding"), dilation.size());
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
  return is_one_of(node, {"conv1d", "conv2d", "conv3d", "_convolution", "convolution"}) && is_transposed(node) == false;
}

bool is_transposed_conv(const jit::Node* node) {
  return is_one_of(node, {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "_convolution", "convolution"}) &&
         is_transposed(node) == true;
}

std::optional<ConvGeometry> conv_geometry(const jit::Node* conv, const at::Tensor& weight) {
  const auto spatial = static_cast<size_t>(weight.dim() - 2);
  const auto stride = numbers_of(conv->namedInput("stride"), spatial);
  const auto dilation = numbers_of(conv->namedInput("dilation"), spatial);
  const auto padding = dilation ? paddings(conv, weight, *dilation) : std::nullopt;
  const auto groups = constant_int(conv->namedInput("groups"));
  if (!stride || !padding || !groups) return std::nullopt;
  if (!is_transposed_conv(conv)) return ConvGeometry{*stride, *padding, *dilation, *groups, {}};
  const auto output_padding = numbers_of(conv->namedInput("output_padding"), spatial);
  if (!output_padding) return std::nullopt;
  return ConvGeometry{*stride, *padding, *dilation, *groups, *output_padding};
}

}  // namespace bnfold
