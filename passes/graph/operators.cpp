#include "graph/operators.h"

#include <algorithm>
#include <string_view>

#include "graph/constants.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// clamp with tensors as bounds, to whose sizes its input is broadcast
bool broadcasts_bounds(const jit::Node* node) {
  static const OperatorNames clamps = {"clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_"};
  const auto bounds = node->inputs().slice(1);
  return is_one_of(node, clamps) && std::any_of(bounds.begin(), bounds.end(), [](const jit::Value* bound) {
           return bound->type()->kind() == c10::TypeKind::TensorType;
         });
}

}  // namespace

bool is_one_of(const jit::Node* node, const OperatorNames& names) {
  return node->kind().is_aten() && names.count(node->kind().toUnqualString()) != 0;
}

bool is_step(const jit::Node* node) {
  return std::string_view(node->kind().toQualString()).substr(0, 8) == "mkldnn::";
}

bool is_convolution(const jit::Node* node) {
  return node->kind().is_aten() && std::string_view(node->kind().toUnqualString()).find("conv") != std::string_view::npos;
}

std::optional<bool> is_transposed(const jit::Node* convolution) {
  if (has_argument(convolution, "transposed")) return constant_bool(convolution->namedInput("transposed"));
  return std::string_view(convolution->kind().toUnqualString()).substr(0, 14) == "conv_transpose";
}

bool is_dropout(const jit::Node* node) {
  static const OperatorNames names = {"dropout",  "feature_dropout",  "alpha_dropout",  "feature_alpha_dropout",
                                      "dropout_", "feature_dropout_", "alpha_dropout_", "feature_alpha_dropout_"};
  return is_one_of(node, names);
}

bool keeps_sizes(const jit::Node* node) {
  // clang-format off: a line for each of them would hide the code around
  static const OperatorNames names = {"relu",
                                      "relu_",
                                      "relu6",
                                      "relu6_",
                                      "leaky_relu",
                                      "leaky_relu_",
                                      "prelu",
                                      "elu",
                                      "elu_",
                                      "selu",
                                      "selu_",
                                      "celu",
                                      "celu_",
                                      "gelu",
                                      "silu",
                                      "silu_",
                                      "mish",
                                      "mish_",
                                      "sigmoid",
                                      "sigmoid_",
                                      "tanh",
                                      "tanh_",
                                      "hardtanh",
                                      "hardtanh_",
                                      "hardswish",
                                      "hardswish_",
                                      "hardsigmoid",
                                      "hardsigmoid_",
                                      "softplus",
                                      "softmax",
                                      "log_softmax",
                                      "clamp",
                                      "clamp_",
                                      "clamp_min",
                                      "clamp_min_",
                                      "clamp_max",
                                      "clamp_max_",
                                      "threshold",
                                      "abs",
                                      "exp",
                                      "neg",
                                      "neg_",
                                      "sqrt",
                                      "batch_norm",
                                      "native_batch_norm",
                                      "_native_batch_norm_legit_no_training",
                                      "_batch_norm_impl_index",
                                      "instance_norm",
                                      "layer_norm",
                                      "group_norm",
                                      "contiguous",
                                      "clone",
                                      "detach",
                                      "alias",
                                      "to",
                                      "float",
                                      "half",
                                      "double",
                                      "flip",
                                      "roll",
                                      "channel_shuffle",
                                      "cumsum"};
  // clang-format on
  return (is_one_of(node, names) && !broadcasts_bounds(node)) || is_dropout(node);
}

bool keeps_channels(const jit::Node* node) {
  static const OperatorNames names = {
      "max_pool1d",          "max_pool2d",          "max_pool3d",           "avg_pool1d",          "avg_pool2d",
      "avg_pool3d",          "adaptive_avg_pool1d", "adaptive_avg_pool2d",  "adaptive_avg_pool3d", "adaptive_max_pool1d",
      "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d",   "upsample_nearest2d",  "upsample_nearest3d",
      "upsample_bilinear2d", "upsample_linear1d",   "upsample_trilinear3d", "upsample_bicubic2d",  "reflection_pad1d",
      "reflection_pad2d",    "reflection_pad3d",    "replication_pad1d",    "replication_pad2d",   "replication_pad3d"};
  return is_one_of(node, names);
}

int64_t spatial_dimensions(const jit::Node* node) {
  const std::string name = node->kind().toUnqualString();  // ends in 1d, 2d or 3d
  return name[name.size() - 2] - '0';
}

bool reads_metadata_only(const jit::Node* node, const jit::Value* value) {
  static const std::unordered_set<std::string> readers = {
      "aten::dim",        "aten::size",         "aten::len",          "aten::numel",  "aten::is_floating_point",
      "aten::is_complex", "prim::dtype",        "prim::device",       "prim::layout", "prim::is_cuda",
      "prim::is_sparse",  "prim::is_quantized", "prim::requires_grad"};
  static const std::unordered_set<std::string> by_second = {"aten::reshape_as", "aten::view_as",   "aten::expand_as",
                                                            "aten::zeros_like", "aten::ones_like", "aten::empty_like"};
  const std::string kind = node->kind().toQualString();
  if (readers.count(kind) != 0) return true;
  if (by_second.count(kind) == 0) return false;
  const bool makes_another = kind.size() > 5 && kind.compare(kind.size() - 5, 5, "_like") == 0;
  return makes_another || node->input(0) != value;
}

bool writes_into(const jit::Node* node, const jit::Value* value) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr) return false;
  for (size_t i = 0; i < node->inputs().size() && i < schema->arguments().size(); ++i) {
    const c10::AliasInfo* alias = schema->arguments()[i].alias_info();
    if (node->inputs()[i] == value && alias != nullptr && alias->isWrite()) return true;
  }
  return false;
}

bool may_return_its_input(const jit::Node* node) {
  // Their schemas don't say so, but they return their input where there is nothing to do.
  static const OperatorNames sometimes = {
      "contiguous", "reshape",     "reshape_as", "flatten",      "to",           "float",
      "half",       "double",      "type_as",    "expand_as",    "atleast_1d",   "atleast_2d",
      "atleast_3d", "sum_to_size", "to_dense",   "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"};
  if (is_one_of(node, sometimes) || is_dropout(node)) return true;
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr || schema->arguments().empty() || schema->returns().empty()) return true;
  const c10::AliasInfo* input = schema->arguments()[0].alias_info();
  const c10::AliasInfo* output = schema->returns()[0].alias_info();
  return input != nullptr && output != nullptr;
}

}  // namespace bnfold
