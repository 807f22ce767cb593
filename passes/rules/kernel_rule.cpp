#include "rules/kernel_rule.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/operators.h"
#include "knowledge/static_values.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A norm in float behind weights in half or bfloat16 is what mixed precision makes; batch_norm computes such a pair.
bool dtypes_agree(at::ScalarType weight, const Site& site) {
  const bool narrow = weight == at::kHalf || weight == at::kBFloat16;
  return weight == site.norm_dtype || (site.from_batch_norm && site.norm_dtype == at::kFloat && narrow);
}

// weight.to(x.dtype), where the layer follows its input
bool casts_like_another(const jit::Node* node) {
  return node->kind() == jit::aten::to && has_argument(node, "dtype") &&
         node->namedInput("dtype")->node()->kind() == jit::prim::dtype;
}

std::optional<Decline> why_not_foldable(const Site& site, const at::Tensor& tensor) {
  if (tensor.device() != site.affine.scale.device()) {
    return Decline{Reason::devices_differ, site.node,
                   fmt::format("the weight is on {}, the norm on {}", tensor.device().str(), site.affine.scale.device().str())};
  }
  if (!algebra::is_plain_floating(tensor)) {
    return Decline{Reason::weight_dtype_unsupported, site.node, fmt::format("the weight is {}", tensor.toString())};
  }
  if (!dtypes_agree(tensor.scalar_type(), site)) {
    return Decline{Reason::dtypes_differ, site.node,
                   fmt::format("the weight is {}, the norm {}", toString(tensor.scalar_type()), toString(site.norm_dtype))};
  }
  return std::nullopt;
}

// The name that a new value gets in the place of the operand.
std::string attribute_name(const ParameterStore& store, const StaticOperand& operand, const char* of_computed) {
  return operand.computed ? of_computed : attribute_name(store, operand.leaf);
}

enum class Side { outputs, inputs };

// The layer, whose channels on that side lie along `channel_dimension` of the site's value and are those of the affine.
std::variant<Layer, Decline> read_layer_along(const Site& site, const KernelInputs& inputs, int64_t channel_dimension,
                                              Side side) {
  const bool outputs = side == Side::outputs;
  if (!site.affine.varies_only_along(channel_dimension)) {
    return Decline{
        Reason::affine_varies_elsewhere, site.node,
        fmt::format("the norm's channels are not dimension {} of the {}", channel_dimension, outputs ? "output" : "input")};
  }
  auto read = read_layer(site, inputs);
  const auto* layer = std::get_if<Layer>(&read);
  if (layer == nullptr) return read;
  const int64_t channels = site.affine.size_along(channel_dimension);
  const int64_t wanted = outputs ? layer->kernel.output_channels() : layer->kernel.input_channels();
  if (channels == wanted || (channels == 1 && !site.from_batch_norm)) return read;
  return Decline{Reason::channels_differ, site.node,
                 fmt::format("{} channels {} the layer, the norm has {}", wanted, outputs ? "leave" : "enter", channels)};
}

// Whether the middle tap of a convolution reads the pixel that it writes.
bool is_centred(const jit::Node* conv, const at::Tensor& weight) {
  const auto geometry = conv_geometry(conv, weight);
  if (!geometry) return false;
  for (size_t i = 0; i < geometry->stride.size(); ++i) {
    const int64_t size = weight.size(static_cast<int64_t>(i) + 2);
    if (geometry->stride[i] != 1 || size % 2 == 0) return false;
    if (geometry->padding[i] != geometry->dilation[i] * (size / 2)) return false;
  }
  return true;
}

}  // namespace

bool StaticOperand::is_transposed() const {
  return std::count_if(views.begin(), views.end(), [](const jit::Node* view) { return view->kind() == jit::aten::t; }) % 2 == 1;
}

std::optional<StaticOperand> static_operand(const ParameterStore& store, jit::Value* value) {
  std::vector<jit::Node*> views;
  while (value->node()->kind() == jit::aten::t || casts_like_another(value->node())) {
    views.insert(views.begin(), value->node());
    value = value->node()->input(0);
  }
  if (const auto tensor = store.read(value)) return StaticOperand{value, *tensor, views};
  const auto computed = static_tensor(store, value);
  if (!computed) return std::nullopt;
  return StaticOperand{computed->leaf, computed->tensor, views, /*computed=*/true};
}

std::string attribute_name(const ParameterStore& store, const jit::Value* leaf) {
  const std::string path = store.path(leaf);
  return path.substr(path.rfind('.') + 1);
}

std::string bias_name(const std::string& weight_name) {
  return weight_name == "weight" ? "bias" : weight_name + "_bias";
}

namespace {

std::optional<StaticOperand> as_planned(std::optional<StaticOperand> operand, const Site& site, size_t input) {
  for (const Edit& edit : site.planned) {
    const auto* set = std::get_if<SetInput>(&edit);
    if (operand && set != nullptr && set->node == site.node && set->input == input) operand->tensor = set->tensor;
  }
  return operand;
}

// Whether `value` is [N, I, O] for a matrix of these sizes.
bool is_batch_of(const jit::Value* value, at::IntArrayRef matrix, const Knowledge& known) {
  return known.ranks.of(value) == 3 && known.extents.of(value, 1) == matrix[0] && known.extents.of(value, 2) == matrix[1];
}

}  // namespace

std::optional<StaticOperand> planned_operand(const Site& site, size_t input) {
  return as_planned(static_operand(site.known.store, site.node->input(input)), site, input);
}

std::optional<StaticOperand> planned_repeated_matrix(const Site& site, size_t input) {
  std::vector<jit::Node*> views;
  jit::Node* view = site.node->input(input)->node();
  while (is_one_of(view, {"view", "reshape"})) {
    views.insert(views.begin(), view);
    view = view->input(0)->node();
  }
  views.insert(views.begin(), view);
  auto matrix = view->kind() == jit::aten::expand ? static_operand(site.known.store, view->input(0)) : std::nullopt;
  if (!matrix || !matrix->tensor.defined() || matrix->tensor.dim() != 2) return std::nullopt;
  const at::Tensor repeated = matrix->is_transposed() ? matrix->tensor.t() : matrix->tensor;
  const auto repeats = [&](const jit::Node* node) { return is_batch_of(node->output(), repeated.sizes(), site.known); };
  if (!std::all_of(views.begin(), views.end(), repeats)) return std::nullopt;
  matrix->views.insert(matrix->views.end(), views.begin(), views.end());
  return as_planned(matrix, site, input);
}

std::variant<Layer, Decline> read_layer(const Site& site, const KernelInputs& inputs) {
  const auto weight = inputs.repeated ? planned_repeated_matrix(site, inputs.weight) : planned_operand(site, inputs.weight);
  if (!weight || !weight->tensor.defined()) {
    return Decline{Reason::weight_not_static, site.node, "the weight is computed or changed while the module runs"};
  }
  std::optional<StaticOperand> bias;
  if (inputs.bias) {
    bias = planned_operand(site, *inputs.bias);
    if (!bias) return Decline{Reason::weight_not_static, site.node, "the bias is computed or changed while the module runs"};
  }
  const algebra::Kernel kernel{weight->tensor, bias ? bias->tensor : at::Tensor(), inputs.layout, inputs.groups};
  for (const at::Tensor& tensor : {kernel.weight, kernel.bias}) {
    if (!tensor.defined()) continue;
    if (const auto decline = why_not_foldable(site, tensor)) return *decline;
  }
  const bool fits = kernel.weight.dim() >= 2 &&
                    (!kernel.bias.defined() || (kernel.bias.dim() == 1 && kernel.bias.size(0) == kernel.output_channels()));
  if (!fits) return Decline{Reason::channels_differ, site.node, "weight and bias of the layer don't fit each other"};
  return Layer{kernel, *weight, bias};
}

Answer write_layer(const Site& site, const KernelInputs& inputs, const Layer& layer, const algebra::Kernel& folded) {
  const algebra::Kernel& kernel = layer.kernel;
  if (algebra::left_range(kernel.weight, folded.weight) ||
      (folded.bias.defined() && algebra::left_range(kernel.bias, folded.bias))) {
    return Decline{Reason::folded_weight_not_finite, site.node,
                   fmt::format("the product leaves the range of {}", toString(kernel.weight.scalar_type()))};
  }
  const ParameterStore& store = site.known.store;
  jit::Value* weight = layer.weight.leaf;
  const std::string weight_name = attribute_name(store, layer.weight, "weight");
  Absorb absorb{{SetInput{site.node, inputs.weight, folded.weight, weight, weight_name, layer.weight.views}},
                store.layer(weight)};
  if (!folded.bias.defined() || folded.bias.is_same(kernel.bias)) return absorb;
  const bool had_bias = layer.bias && store.read(layer.bias->leaf)->defined();
  jit::Value* beside = had_bias ? layer.bias->leaf : weight;
  const std::string name = had_bias ? attribute_name(store, *layer.bias, "bias") : bias_name(weight_name);
  if (inputs.bias) {
    const auto views = had_bias ? layer.bias->views : std::vector<jit::Node*>();
    absorb.edits.push_back(SetInput{site.node, *inputs.bias, folded.bias, beside, name, views});
  } else if (folded.bias.any().item<bool>()) {
    absorb.edits.push_back(AddToOutput{site.node, folded.bias, beside, name});
  }
  return absorb;
}

Answer absorb_into_outputs(const Site& site, const KernelInputs& inputs, int64_t channel_dimension) {
  const auto read = read_layer_along(site, inputs, channel_dimension, Side::outputs);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  for (const Edit& edit : site.planned) {
    const auto* added = std::get_if<AddToOutput>(&edit);
    if (added == nullptr || added->node != site.node) continue;
    return Decline{Reason::value_has_other_readers, site.node, "what is added behind the layer would have to be scaled, too"};
  }
  const Layer& layer = std::get<Layer>(read);
  return write_layer(site, inputs, layer,
                     algebra::scale_and_shift_outputs(layer.kernel, site.affine.scale.flatten(), site.affine.shift.flatten()));
}

Answer absorb_into_inputs(const Site& site, const KernelInputs& inputs, int64_t channel_dimension, bool takes_shift) {
  const auto read = read_layer_along(site, inputs, channel_dimension, Side::inputs);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  if (!takes_shift && algebra::has_shift(site.affine)) {
    return Decline{Reason::shift_at_padding, site.node,
                   "its outputs at the border read padding, to which the shift was not added"};
  }
  const Layer& layer = std::get<Layer>(read);
  return write_layer(site, inputs, layer,
                     algebra::scale_and_shift_inputs(layer.kernel, site.affine.scale.flatten(), site.affine.shift.flatten()));
}

Answer absorb_identity(const Site& site) {
  const auto groups = constant_int(site.node->namedInput("groups"));
  if (!groups) return Decline{Reason::operand_not_constant, site.node, "groups is computed while the module runs"};
  const KernelInputs inputs{argument_index(site.node, "weight"), argument_index(site.node, "bias"),
                            algebra::KernelLayout::output_first, *groups};
  const auto read = read_layer(site, inputs);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Layer& layer = std::get<Layer>(read);
  const algebra::Kernel& kernel = layer.kernel;
  const int64_t channels = site.affine.size_along(1);
  if (kernel.weight.dim() != site.affine.rank() || !is_centred(site.node, kernel.weight) ||
      kernel.output_channels() != channels || kernel.input_channels() != channels || !site.affine.varies_only_along(1)) {
    return Decline{Reason::channels_differ, site.node, "the convolution beside the norm does not keep the size of its input"};
  }
  return write_layer(site, inputs, layer,
                     algebra::with_identity(kernel, site.affine.scale.flatten(), site.affine.shift.flatten()));
}

}  // namespace bnfold
