#include "graph/operator_table.h"

#include <torch/csrc/jit/runtime/operator.h>

#include <unordered_map>

namespace bnfold {

namespace jit = torch::jit;

const std::vector<OperatorRow>& operator_rows() {
  static const std::vector<OperatorRow> rows = {
      // activations and what else is elementwise
      {{Shape::same, Dtype::same, Storage::fresh, Order::kept},
       {"relu",  "relu6", "leaky_relu", "hardtanh", "hardswish",   "hardsigmoid", "elu",       "selu",   "celu",
        "gelu",  "silu",  "mish",       "prelu",    "softplus",    "threshold",   "neg",       "square", "sign",
        "floor", "ceil",  "round",      "trunc",    "log_sigmoid", "softshrink",  "hardshrink"}},
      {{Shape::same, Dtype::promoted, Storage::fresh, Order::kept}, {"clamp", "clamp_min", "clamp_max"}},
      {{Shape::same, Dtype::floating, Storage::fresh, Order::kept},
       {"sigmoid", "tanh", "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf", "abs"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::kept}, {"clone", "flip", "roll", "cumsum", "tril", "triu", "bernoulli"}},
      {{Shape::same, Dtype::unknown, Storage::fresh, Order::unknown},
       {"softmax.int", "log_softmax.int", "_softmax", "_log_softmax", "logical_not", "isnan", "isinf", "isfinite", "zeros_like",
        "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}},
      {{Shape::same, Dtype::same, Storage::view, Order::kept},
       {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "detach", "alias", "positive"}},
      {{Shape::same, Dtype::same, Storage::view, Order::followed}, {"contiguous"}},
      {{Shape::same, Dtype::unknown, Storage::view, Order::kept},
       {"to.device", "to.dtype", "to.other", "to.dtype_layout", "to.prim_Device", "to.prim_dtype", "to.prim_other", "type_as"}},

      // norms
      {{Shape::normalized, Dtype::same, Storage::fresh, Order::followed},
       {"batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_impl_index", "cudnn_batch_norm"}},
      {{Shape::normalized, Dtype::same, Storage::fresh, Order::unknown}, {"instance_norm"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::unknown}, {"layer_norm", "group_norm", "rms_norm"}},

      // arithmetic
      {{Shape::broadcast, Dtype::promoted, Storage::fresh, Order::kept},
       {"add.Tensor",  "add.Scalar",  "sub.Tensor",  "sub.Scalar",       "mul.Tensor",       "mul.Scalar",       "rsub.Tensor",
        "rsub.Scalar", "maximum",     "minimum",     "clamp.Tensor",     "clamp_min.Tensor", "clamp_max.Tensor", "addcmul",
        "addcdiv",     "lerp.Tensor", "lerp.Scalar", "remainder.Tensor", "remainder.Scalar", "fmod.Tensor",      "fmod.Scalar"}},
      {{Shape::broadcast, Dtype::quotient, Storage::fresh, Order::kept},
       {"div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode", "pow.Tensor_Tensor", "pow.Tensor_Scalar",
        "floor_divide", "floor_divide.Scalar"}},
      {{Shape::broadcast, Dtype::same, Storage::fresh, Order::kept}, {"masked_fill.Scalar", "masked_fill.Tensor"}},
      {{Shape::broadcast, Dtype::unknown, Storage::fresh, Order::kept},
       {"where.self",  "where.ScalarOther", "where.ScalarSelf",   "eq.Tensor",         "eq.Scalar",
        "ne.Tensor",   "ne.Scalar",         "lt.Tensor",          "lt.Scalar",         "le.Tensor",
        "le.Scalar",   "gt.Tensor",         "gt.Scalar",          "ge.Tensor",         "ge.Scalar",
        "logical_and", "logical_or",        "bitwise_and.Tensor", "bitwise_or.Tensor", "atan2",
        "hypot"}},

      // layers
      {{Shape::convolution, Dtype::layer, Storage::fresh, Order::followed},
       {"conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding", "conv_transpose1d",
        "conv_transpose2d.input", "conv_transpose3d.input"}},
      {{Shape::batched_convolution, Dtype::layer, Storage::fresh, Order::followed},
       {"convolution", "_convolution", "_convolution.deprecated", "_convolution_mode"}},
      {{Shape::product, Dtype::layer, Storage::fresh, Order::contiguous}, {"linear"}},
      {{Shape::product, Dtype::layer, Storage::fresh, Order::unknown}, {"matmul"}},
      {{Shape::matrix, Dtype::layer, Storage::fresh, Order::contiguous}, {"addmm"}},
      {{Shape::matrix, Dtype::layer, Storage::fresh, Order::unknown}, {"mm"}},
      {{Shape::unknown, Dtype::layer, Storage::fresh, Order::unknown}, {"bmm", "baddbmm", "addbmm", "mv", "addmv", "dot"}},
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::unknown},
       {"scaled_dot_product_attention", "_native_multi_head_attention", "bilinear", "cdist", "lstm.input", "gru.input",
        "rnn_tanh.input", "rnn_relu.input", "lstm_cell", "gru_cell"}},
      {{Shape::embedded, Dtype::same, Storage::fresh, Order::unknown}, {"embedding"}},

      // steps of oneDNN, with what stands behind a layer
      {{Shape::unknown, Dtype::layer, Storage::fresh, Order::unknown},
       {"mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise.binary", "mkldnn::_convolution_transpose_pointwise",
        "mkldnn::_linear_pointwise", "mkldnn::_linear_pointwise.binary"}},
      {{Shape::same, Dtype::same, Storage::view, Order::unknown, /*in_place=*/true}, {"mkldnn::_convolution_pointwise_.binary"}},

      // pooling, interpolation, padding
      {{Shape::channels, Dtype::same, Storage::fresh, Order::followed},
       {"max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "reflection_pad1d",
        "reflection_pad2d",
        "reflection_pad3d",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d"}},
      {{Shape::interpolated, Dtype::same, Storage::fresh, Order::followed},
       {"upsample_nearest1d", "upsample_nearest1d.vec", "upsample_nearest2d", "upsample_nearest2d.vec", "upsample_nearest3d",
        "upsample_nearest3d.vec", "upsample_linear1d", "upsample_linear1d.vec", "upsample_bilinear2d", "upsample_bilinear2d.vec",
        "upsample_trilinear3d", "upsample_trilinear3d.vec", "upsample_bicubic2d", "upsample_bicubic2d.vec"}},
      {{Shape::padded, Dtype::same, Storage::fresh, Order::unknown}, {"pad", "constant_pad_nd"}},

      // joined and cut
      {{Shape::concatenation, Dtype::parts, Storage::fresh, Order::followed}, {"cat", "concat"}},
      {{Shape::unknown, Dtype::parts, Storage::fresh, Order::unknown}, {"stack", "hstack", "vstack", "dstack"}},
      {{Shape::pieces, Dtype::same, Storage::view, Order::kept},
       {"chunk", "split.Tensor", "split.sizes", "split", "split_with_sizes"}},
      {{Shape::cut, Dtype::same, Storage::view, Order::kept}, {"slice.Tensor", "narrow", "narrow.Tensor"}},
      {{Shape::selected, Dtype::same, Storage::view, Order::kept}, {"select.int"}},

      // seen with other sizes
      {{Shape::listed, Dtype::same, Storage::view, Order::unknown}, {"view", "reshape"}},
      {{Shape::like, Dtype::same, Storage::view, Order::unknown}, {"view_as", "reshape_as", "expand_as"}},
      {{Shape::flattened, Dtype::same, Storage::view, Order::unknown}, {"flatten.using_ints"}},
      {{Shape::permuted, Dtype::same, Storage::view, Order::unknown}, {"permute"}},
      {{Shape::transposed, Dtype::same, Storage::view, Order::unknown}, {"transpose.int", "t"}},
      {{Shape::unsqueezed, Dtype::same, Storage::view, Order::unknown}, {"unsqueeze"}},
      {{Shape::squeezed, Dtype::same, Storage::view, Order::unknown}, {"squeeze", "squeeze.dim"}},
      {{Shape::unknown, Dtype::same, Storage::view, Order::unknown},
       {"expand", "unfold", "unflatten.int", "diagonal", "movedim.int"}},
      {{Shape::shuffled, Dtype::same, Storage::view, Order::unknown}, {"pixel_shuffle", "pixel_unshuffle"}},
      {{Shape::same, Dtype::same, Storage::view, Order::unknown}, {"channel_shuffle"}},

      // reductions
      {{Shape::reduced, Dtype::unknown, Storage::fresh, Order::unknown},
       {"mean", "mean.dim", "sum", "sum.dim_IntList", "amax", "amin"}},
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::unknown},
       {"var",
        "var.dim",
        "var.correction",
        "std",
        "std.dim",
        "std.correction",
        "prod",
        "prod.dim_int",
        "norm.Scalar",
        "norm.ScalarOpt_dim",
        "linalg_vector_norm",
        "max",
        "max.dim",
        "min",
        "min.dim",
        "argmax",
        "argmin",
        "any",
        "all",
        "logsumexp",
        "topk",
        "sort",
        "index_select",
        "gather",
        "index.Tensor",
        "repeat",
        "tile",
        "one_hot",
        "im2col",
        "col2im",
        "grid_sampler",
        "masked_select",
        "nonzero",
        "cumprod",
        "scatter.src",
        "scatter_add",
        "index_add"}},

      // made of nothing
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::contiguous},
       {"zeros", "ones", "full", "empty.memory_format", "rand", "randn", "arange", "arange.start", "arange.start_step",
        "linspace", "eye", "new_zeros", "new_ones", "new_full", "new_empty"}},
  };
  return rows;
}

namespace {

struct Known {
  Operator facts;
  Operator functional;
};

using Table = std::unordered_map<const c10::FunctionSchema*, Known>;

c10::OperatorName name_of(const std::string& overload) {
  const size_t dot = overload.find('.');
  const std::string name = overload.substr(0, dot);
  return {name.find("::") == std::string::npos ? "aten::" + name : name,
          dot == std::string::npos ? "" : overload.substr(dot + 1)};
}

// "relu_" of "relu", "add_.Tensor" of "add.Tensor"
c10::OperatorName in_place(c10::OperatorName name) {
  name.name += '_';
  return name;
}

void add(Table& table, const c10::OperatorName& name, const Known& known) {
  if (const auto found = jit::findOperatorFor(name)) table.emplace(&found->schema(), known);  // an older LibTorch lacks some
}

Table make_table() {
  const Operator overwriting{Shape::same, Dtype::same, Storage::view, Order::kept, /*in_place=*/true};
  Table table;
  for (const OperatorRow& row : operator_rows()) {
    const bool elementwise = row.facts.shape == Shape::same || row.facts.shape == Shape::broadcast;
    for (const std::string& overload : row.overloads) {
      add(table, name_of(overload), {row.facts, row.facts});
      if (elementwise) add(table, in_place(name_of(overload)), {overwriting, row.facts});
    }
  }
  return table;
}

const Known& known_of(const jit::Node* node) {
  static const Table table = make_table();
  static const Known unknown;
  const c10::FunctionSchema* schema = node->maybeSchema();
  const auto found = schema == nullptr ? table.end() : table.find(schema);
  return found == table.end() ? unknown : found->second;
}

}  // namespace

const Operator& operator_of(const jit::Node* node) {
  return known_of(node).facts;
}

const Operator& functional_operator_of(const jit::Node* node) {
  return known_of(node).functional;
}

}  // namespace bnfold
