#include "rules/kernel_rule.h"

#include <fmt/format.h>

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_plain_floating(const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  const bool floating = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16;
  return floating && tensor.layout() == at::kStrided;
}

// A norm in float behind weights in half or bfloat16 is what mixed precision makes; batch_norm computes such a pair.
bool dtypes_agree(at::ScalarType weight, at::ScalarType norm) {
  return weight == norm || (norm == at::kFloat && (weight == at::kHalf || weight == at::kBFloat16));
}

std::string bias_name(const std::string& weight_name) {
  return weight_name == "weight" ? "bias" : weight_name + "_bias";
}

std::optional<Decline> why_not_foldable(const Site& site, const at::Tensor& tensor) {
  if (tensor.device() != site.affine.scale.device()) {
    return Decline{Reason::devices_differ, site.node,
                   fmt::format("the weight is on {}, the norm on {}", tensor.device().str(), site.affine.scale.device().str())};
  }
  if (!is_plain_floating(tensor)) {
    return Decline{Reason::weight_dtype_unsupported, site.node, fmt::format("the weight is {}", tensor.toString())};
  }
  if (!dtypes_agree(tensor.scalar_type(), site.norm_dtype)) {
    return Decline{Reason::dtypes_differ, site.node,
                   fmt::format("the weight is {}, the norm {}", toString(tensor.scalar_type()), toString(site.norm_dtype))};
  }
  return std::nullopt;
}

}  // namespace

std::optional<StaticOperand> static_operand(const ParameterStore& store, jit::Value* value) {
  const bool transposed = value->node()->kind() == jit::aten::t;
  jit::Value* leaf = transposed ? value->node()->input() : value;
  const auto tensor = store.read(leaf);
  if (!tensor) return std::nullopt;
  return StaticOperand{leaf, *tensor, transposed};
}

std::string attribute_name(const ParameterStore& store, const jit::Value* leaf) {
  const std::string path = store.path(leaf);
  return path.substr(path.rfind('.') + 1);
}

Answer absorb_into_kernel(const Site& site, const KernelInputs& inputs, int64_t channel_dimension) {
  if (!site.affine.varies_only_along(channel_dimension)) {
    return Decline{Reason::affine_varies_elsewhere, site.node,
                   fmt::format("the norm's channels are not dimension {} of the output", channel_dimension)};
  }
  const auto weight = static_operand(site.store, site.node->input(inputs.weight));
  if (!weight || !weight->tensor.defined()) {
    return Decline{Reason::weight_not_static, site.node, "the weight is computed or changed while the module runs"};
  }
  std::optional<StaticOperand> bias;
  if (inputs.bias) {
    bias = static_operand(site.store, site.node->input(*inputs.bias));
    if (!bias) return Decline{Reason::weight_not_static, site.node, "the bias is computed or changed while the module runs"};
  }
  algebra::Kernel kernel{weight->tensor, bias ? bias->tensor : at::Tensor(), inputs.layout, inputs.groups};
  for (const at::Tensor& tensor : {kernel.weight, kernel.bias}) {
    if (!tensor.defined()) continue;
    if (const auto decline = why_not_foldable(site, tensor)) return *decline;
  }
  const int64_t channels = site.affine.size_along(channel_dimension);
  const bool weight_fits = kernel.weight.dim() >= 2;
  const bool bias_fits = !kernel.bias.defined() || (kernel.bias.dim() == 1 && kernel.bias.size(0) == kernel.output_channels());
  if (!weight_fits || !bias_fits || kernel.output_channels() != channels) {
    const int64_t layer_channels = weight_fits ? kernel.output_channels() : 1;
    return Decline{Reason::channels_differ, site.node,
                   fmt::format("{} channels leave the layer, the norm has {}", layer_channels, channels)};
  }

  const algebra::Kernel folded =
      algebra::scale_and_shift_outputs(kernel, site.affine.scale.flatten(), site.affine.shift.flatten());
  if (algebra::left_range(kernel.weight, folded.weight) || algebra::left_range(kernel.bias, folded.bias)) {
    return Decline{Reason::folded_weight_not_finite, site.node,
                   fmt::format("the product leaves the range of {}", toString(kernel.weight.scalar_type()))};
  }

  const std::string weight_name = attribute_name(site.store, weight->leaf);
  Absorb absorb{{SetInput{site.node, inputs.weight, folded.weight, weight->leaf, weight_name, weight->transposed}},
                site.store.layer(weight->leaf)};
  // A layer that can have a bias gets one even where it is 0, so that what the result looks like does not depend on values.
  if (inputs.bias || folded.bias.any().item<bool>()) {
    const bool has_leaf = bias && kernel.bias.defined();
    jit::Value* beside = has_leaf ? bias->leaf : weight->leaf;
    const std::string name = has_leaf ? attribute_name(site.store, bias->leaf) : bias_name(weight_name);
    if (inputs.bias) {
      absorb.edits.push_back(SetInput{site.node, *inputs.bias, folded.bias, beside, name});
    } else {
      absorb.edits.push_back(AddToOutput{site.node, folded.bias, beside, name});
    }
  }
  if (!site.ranks.is_certain(site.node->output())) {
    absorb.edits.push_back(RequireRank{site.node, site.node->input(0), site.affine.rank()});
  }
  return absorb;
}

}  // namespace bnfold
