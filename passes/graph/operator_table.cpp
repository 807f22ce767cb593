#include "graph/operator_table.h"

#include <torch/csrc/jit/runtime/operator.h>

#include <unordered_map>

namespace bnfold {

namespace jit = torch::jit;

const std::vector<OperatorRow>& operator_rows() {
  static const std::vector<OperatorRow> rows = {
      // activations and what else is elementwise
      {{Shape::same, Dtype::same, Storage::fresh, Order::kept},
       {"relu", "relu6", "leaky_relu", "hardtanh", "hardswish",      "hardsigmoid", "elu",        "selu",
        "celu", "gelu",  "silu",       "mish",     "prelu",          "softplus",    "threshold",  "neg",
        "sign", "floor", "ceil",       "round",    "round.decimals", "trunc",       "softshrink", "hardshrink"}},
      {{Shape::same, Dtype::promoted, Storage::fresh, Order::kept}, {"clamp", "clamp_min", "clamp_max"}},
      {{Shape::same, Dtype::inexact, Storage::fresh, Order::kept},
       {"sigmoid", "tanh", "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf"}},
      {{Shape::same, Dtype::floating, Storage::fresh, Order::kept}, {"abs"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::kept}, {"clone", "flip"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::contiguous}, {"tril", "triu", "bernoulli", "log_sigmoid"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::followed}, {"roll"}},
      {{Shape::same, Dtype::quotient, Storage::fresh, Order::kept}, {"square"}},
      {{Shape::same, Dtype::summed, Storage::fresh, Order::contiguous}, {"cumsum"}},
      {{Shape::same, Dtype::averaged, Storage::fresh, Order::derived}, {"softmax.int", "log_softmax.int"}},
      {{Shape::same, Dtype::stated, Storage::fresh, Order::derived},
       {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}},
      {{Shape::same, Dtype::unknown, Storage::fresh, Order::derived},
       {"_softmax", "_log_softmax", "logical_not", "isnan", "isinf", "isfinite"}},
      {{Shape::same, Dtype::same, Storage::view, Order::kept},
       {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "detach", "alias", "positive"}},
      {{Shape::same, Dtype::same, Storage::view, Order::stated}, {"contiguous"}},
      {{Shape::same, Dtype::stated, Storage::view, Order::kept},
       {"to.device", "to.dtype", "to.dtype_layout", "to.prim_Device", "to.prim_dtype", "to.prim_other"}},
      {{Shape::same, Dtype::like, Storage::view, Order::kept}, {"to.other", "type_as"}},

      // what works in place alone
      {{Shape::same, Dtype::same, Storage::view, Order::kept, /*in_place=*/true},
       {"copy_",
        "copy_.Tensor",
        "copy_.int",
        "copy_.float",
        "fill_.Scalar",
        "fill_.Tensor",
        "zero_",
        "pow_.Scalar",
        "pow_.Tensor",
        "floor_divide_.Tensor",
        "index_put_",
        "index_add_",
        "index_copy_",
        "scatter_.src",
        "scatter_.value",
        "scatter_add_",
        "index_fill_.int_Scalar",
        "index_fill_.int_Tensor",
        "scatter_.reduce",
        "scatter_.value_reduce",
        "normal_",
        "uniform_",
        "bernoulli_.float",
        "bernoulli_.Tensor",
        "requires_grad_"}},

      // norms
      {{Shape::normalized, Dtype::same, Storage::fresh, Order::followed},
       {"batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_impl_index", "cudnn_batch_norm"}},
      {{Shape::normalized, Dtype::same, Storage::fresh, Order::derived}, {"instance_norm"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::contiguous}, {"layer_norm"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::derived}, {"group_norm"}},
      {{Shape::same, Dtype::promoted, Storage::fresh, Order::derived}, {"rms_norm"}},

      // arithmetic
      {{Shape::broadcast, Dtype::promoted, Storage::fresh, Order::kept},
       {"add.Tensor",  "add.Scalar",  "sub.Tensor",  "sub.Scalar",       "mul.Tensor",       "mul.Scalar",       "rsub.Tensor",
        "rsub.Scalar", "maximum",     "minimum",     "clamp.Tensor",     "clamp_min.Tensor", "clamp_max.Tensor", "addcmul",
        "addcdiv",     "lerp.Tensor", "lerp.Scalar", "remainder.Tensor", "remainder.Scalar", "fmod.Tensor",      "fmod.Scalar"}},
      {{Shape::broadcast, Dtype::quotient, Storage::fresh, Order::kept},
       {"div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode", "pow.Tensor_Tensor", "pow.Tensor_Scalar",
        "floor_divide", "floor_divide.Scalar"}},
      {{Shape::broadcast, Dtype::quotient, Storage::fresh, Order::derived}, {"pow.Scalar"}},
      {{Shape::broadcast, Dtype::same, Storage::fresh, Order::contiguous}, {"masked_fill.Scalar", "masked_fill.Tensor"}},
      {{Shape::broadcast, Dtype::chosen, Storage::fresh, Order::kept}, {"where.self", "where.ScalarOther", "where.ScalarSelf"}},
      {{Shape::broadcast, Dtype::unknown, Storage::fresh, Order::kept},
       {"eq.Tensor", "eq.Scalar", "ne.Tensor", "ne.Scalar", "lt.Tensor", "lt.Scalar", "le.Tensor", "le.Scalar", "gt.Tensor",
        "gt.Scalar", "ge.Tensor", "ge.Scalar", "logical_and", "logical_or", "bitwise_and.Tensor", "bitwise_or.Tensor", "atan2",
        "hypot"}},

      // layers
      {{Shape::convolution, Dtype::layer, Storage::fresh, Order::followed},
       {"conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding", "conv_transpose2d.input",
        "conv_transpose3d.input"}},
      {{Shape::convolution, Dtype::layer, Storage::fresh, Order::derived}, {"conv_transpose1d"}},
      {{Shape::batched_convolution, Dtype::layer, Storage::fresh, Order::followed},
       {"convolution", "_convolution", "_convolution.deprecated", "_convolution_mode"}},
      {{Shape::linear, Dtype::layer, Storage::fresh, Order::contiguous}, {"linear"}},
      {{Shape::product, Dtype::layer, Storage::fresh, Order::contiguous}, {"matmul"}},
      {{Shape::matrix, Dtype::layer, Storage::fresh, Order::contiguous}, {"addmm", "mm"}},
      {{Shape::matrices, Dtype::layer, Storage::fresh, Order::contiguous}, {"bmm"}},
      {{Shape::matrices, Dtype::layer, Storage::fresh, Order::unknown}, {"baddbmm"}},
      {{Shape::unknown, Dtype::layer, Storage::fresh, Order::unknown}, {"addbmm", "mv", "addmv", "dot"}},
      {{Shape::attention, Dtype::inexact, Storage::fresh, Order::unknown}, {"scaled_dot_product_attention"}},
      {{Shape::sequences, Dtype::inexact, Storage::fresh, Order::unknown}, {"_native_multi_head_attention"}},
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::unknown},
       {"bilinear", "cdist", "lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input", "lstm_cell", "gru_cell",
        "rnn_tanh_cell", "rnn_relu_cell"}},
      {{Shape::embedded, Dtype::same, Storage::fresh, Order::unknown}, {"embedding"}},

      // steps of oneDNN, with what stands behind a layer
      {{Shape::unknown, Dtype::layer, Storage::fresh, Order::unknown},
       {"mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise.binary", "mkldnn::_convolution_transpose_pointwise",
        "mkldnn::_linear_pointwise", "mkldnn::_linear_pointwise.binary"}},
      {{Shape::same, Dtype::same, Storage::view, Order::unknown, /*in_place=*/true}, {"mkldnn::_convolution_pointwise_.binary"}},

      // pooling, interpolation, padding
      {{Shape::channels, Dtype::same, Storage::fresh, Order::followed},
       {"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "max_pool1d_with_indices",
        "max_pool2d_with_indices", "max_pool3d_with_indices"}},
      {{Shape::channels, Dtype::same, Storage::fresh, Order::derived}, {"avg_pool1d"}},
      {{Shape::adapted, Dtype::same, Storage::fresh, Order::followed},
       {"adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"}},
      {{Shape::adapted, Dtype::same, Storage::fresh, Order::derived}, {"adaptive_avg_pool1d", "adaptive_max_pool1d"}},
      {{Shape::bordered, Dtype::same, Storage::fresh, Order::followed},
       {"reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
        "replication_pad3d"}},
      {{Shape::interpolated, Dtype::same, Storage::fresh, Order::followed},
       {"upsample_nearest1d", "upsample_nearest1d.vec", "upsample_nearest2d", "upsample_nearest2d.vec", "upsample_nearest3d",
        "upsample_nearest3d.vec", "upsample_linear1d", "upsample_linear1d.vec", "upsample_bilinear2d", "upsample_bilinear2d.vec",
        "upsample_trilinear3d", "upsample_trilinear3d.vec", "upsample_bicubic2d", "upsample_bicubic2d.vec"}},
      {{Shape::padded, Dtype::same, Storage::fresh, Order::derived}, {"pad", "constant_pad_nd"}},

      // joined and cut
      {{Shape::concatenation, Dtype::parts, Storage::fresh, Order::followed}, {"cat", "concat"}},
      {{Shape::stacked, Dtype::parts, Storage::fresh, Order::unknown}, {"stack"}},
      {{Shape::unknown, Dtype::parts, Storage::fresh, Order::unknown}, {"hstack", "vstack", "dstack"}},
      {{Shape::pieces, Dtype::same, Storage::view, Order::kept},
       {"chunk", "split.Tensor", "split.sizes", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split.Tensor"}},
      {{Shape::unbound, Dtype::same, Storage::view, Order::kept}, {"unbind.int"}},
      {{Shape::cut, Dtype::same, Storage::view, Order::kept}, {"slice.Tensor", "narrow", "narrow.Tensor"}},
      {{Shape::selected, Dtype::same, Storage::view, Order::kept}, {"select.int"}},

      // seen with other sizes
      {{Shape::listed, Dtype::same, Storage::view, Order::unknown}, {"view"}},
      {{Shape::listed, Dtype::same, Storage::view, Order::derived}, {"reshape"}},
      {{Shape::like, Dtype::same, Storage::view, Order::unknown}, {"view_as"}},
      {{Shape::like, Dtype::same, Storage::view, Order::derived}, {"reshape_as", "expand_as"}},
      {{Shape::expanded, Dtype::same, Storage::view, Order::derived}, {"expand"}},
      {{Shape::repeated, Dtype::same, Storage::fresh, Order::unknown}, {"repeat"}},
      {{Shape::flattened, Dtype::same, Storage::view, Order::derived}, {"flatten.using_ints"}},
      {{Shape::permuted, Dtype::same, Storage::view, Order::derived}, {"permute"}},
      {{Shape::transposed, Dtype::same, Storage::view, Order::derived}, {"transpose.int", "t"}},
      {{Shape::unsqueezed, Dtype::same, Storage::view, Order::derived}, {"unsqueeze"}},
      {{Shape::squeezed, Dtype::same, Storage::view, Order::derived}, {"squeeze", "squeeze.dim", "squeeze.dims"}},
      {{Shape::windowed, Dtype::same, Storage::view, Order::unknown}, {"unfold"}},
      {{Shape::divided, Dtype::same, Storage::view, Order::unknown}, {"unflatten.int"}},
      {{Shape::diagonal, Dtype::same, Storage::view, Order::unknown}, {"diagonal"}},
      {{Shape::resized, Dtype::same, Storage::view, Order::unknown}, {"movedim.int", "mT"}},
      {{Shape::shuffled, Dtype::same, Storage::view, Order::derived}, {"pixel_shuffle"}},
      {{Shape::unshuffled, Dtype::same, Storage::view, Order::derived}, {"pixel_unshuffle"}},
      {{Shape::same, Dtype::same, Storage::view, Order::derived}, {"channel_shuffle"}},

      // reductions
      {{Shape::reduced, Dtype::averaged, Storage::fresh, Order::contiguous}, {"mean", "mean.dim"}},
      {{Shape::reduced, Dtype::summed, Storage::fresh, Order::contiguous}, {"sum", "sum.dim_IntList"}},
      {{Shape::reduced, Dtype::same, Storage::fresh, Order::contiguous}, {"amax", "amin"}},
      {{Shape::reduced, Dtype::same, Storage::fresh, Order::unknown}, {"max.dim", "min.dim", "median.dim", "kthvalue"}},
      {{Shape::reduced, Dtype::unknown, Storage::fresh, Order::unknown},
       {"norm.ScalarOpt_dim", "linalg_vector_norm", "var", "var.dim", "var.correction", "std", "std.dim", "std.correction",
        "prod", "prod.dim_int", "norm.Scalar", "max", "min", "argmax", "argmin", "any", "all", "logsumexp"}},
      {{Shape::resized, Dtype::same, Storage::fresh, Order::unknown}, {"index_select", "topk", "glu"}},
      {{Shape::same, Dtype::same, Storage::fresh, Order::unknown}, {"sort"}},
      {{Shape::gathered, Dtype::same, Storage::fresh, Order::unknown}, {"gather"}},
      {{Shape::unknown, Dtype::same, Storage::fresh, Order::unknown}, {"index.Tensor", "masked_select"}},
      {{Shape::windowed, Dtype::unknown, Storage::fresh, Order::unknown}, {"one_hot"}},
      {{Shape::tiled, Dtype::unknown, Storage::fresh, Order::unknown}, {"tile"}},
      {{Shape::equation, Dtype::unknown, Storage::unknown, Order::unknown}, {"einsum"}},
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::unknown},
       {"im2col", "col2im", "grid_sampler", "nonzero", "cumprod", "scatter.src", "scatter_add", "index_add"}},

      // made of nothing
      {{Shape::given, Dtype::unknown, Storage::fresh, Order::contiguous},
       {"zeros", "ones", "full", "empty.memory_format", "rand", "randn"}},
      {{Shape::unknown, Dtype::unknown, Storage::fresh, Order::contiguous},
       {"arange", "arange.start", "arange.start_step", "linspace", "eye"}},
      {{Shape::listed, Dtype::unknown, Storage::fresh, Order::contiguous}, {"new_zeros", "new_ones", "new_full", "new_empty"}},
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
    const bool elementwise = !row.facts.in_place && (row.facts.shape == Shape::same || row.facts.shape == Shape::broadcast);
    for (const std::string& overload : row.overloads) {
      add(table, name_of(overload), {row.facts, row.facts.in_place ? Operator() : row.facts});
      if (!elementwise) continue;
      // New memory stands in for what is overwritten only where it lies as that does.
      add(table, in_place(name_of(overload)), {overwriting, row.facts.order == Order::kept ? row.facts : Operator()});
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
