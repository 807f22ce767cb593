// The rules, by overload: what is not listed here, as what writes into an argument `out`, no affine passes. To add one: its file, its line
// here, its test.
#include <torch/csrc/jit/frontend/function_schema_parser.h>

#include <string>
#include <unordered_map>

#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer activation_backward(const Site& site);
Answer activation_forward(const Site& site);
Answer add_backward(const Site& site);
Answer add_forward(const Site& site);
Answer attention_backward(const Site& site);
Answer attention_forward(const Site& site);
Answer branch_backward(const Site& site);
Answer cast_backward(const Site& site);
Answer cast_forward(const Site& site);
Answer channel_shuffle_backward(const Site& site);
Answer channel_shuffle_forward(const Site& site);
Answer concat_backward(const Site& site);
Answer concat_forward(const Site& site);
Answer conv_backward(const Site& site);
Answer conv_forward(const Site& site);
Answer expand_forward(const Site& site);
Answer flatten_backward(const Site& site);
Answer flatten_forward(const Site& site);
Answer identity_backward(const Site& site);
Answer identity_forward(const Site& site);
Answer interpolate_backward(const Site& site);
Answer interpolate_forward(const Site& site);
Answer leaky_activation_backward(const Site& site);
Answer leaky_activation_forward(const Site& site);
Answer linear_backward(const Site& site);
Answer linear_forward(const Site& site);
Answer matmul_backward(const Site& site);
Answer matmul_forward(const Site& site);
Answer multiply_backward(const Site& site);
Answer multiply_forward(const Site& site);
Answer nonlinear(const Site& site);
Answer norm_backward(const Site& site);
Answer norm_forward(const Site& site);
Answer pad_backward(const Site& site);
Answer pad_forward(const Site& site);
Answer permute_backward(const Site& site);
Answer permute_forward(const Site& site);
Answer piece_backward(const Site& site);
Answer pixel_shuffle_backward(const Site& site);
Answer pixel_shuffle_forward(const Site& site);
Answer pixel_unshuffle_backward(const Site& site);
Answer pixel_unshuffle_forward(const Site& site);
Answer pool_backward(const Site& site);
Answer pool_forward(const Site& site);
Answer rearrange_backward(const Site& site);
Answer rearrange_forward(const Site& site);
Answer recurrent_cell_forward(const Site& site);
Answer recurrent_forward(const Site& site);
Answer reduce_backward(const Site& site);
Answer reduce_forward(const Site& site);
Answer reshape_backward(const Site& site);
Answer reshape_forward(const Site& site);
Answer slice_backward(const Site& site);
Answer slice_forward(const Site& site);
Answer split_forward(const Site& site);
Answer squeeze_backward(const Site& site);
Answer squeeze_forward(const Site& site);
Answer stack_backward(const Site& site);
Answer unsqueeze_backward(const Site& site);
Answer unsqueeze_forward(const Site& site);
Answer zero_preserving_backward(const Site& site);
Answer zero_preserving_forward(const Site& site);

const std::vector<Rule>& rule_table() {
  static const std::vector<Rule> rules = {
      // layers, which absorb
      {"conv",
       {"aten::conv1d", "aten::conv1d.padding", "aten::conv2d", "aten::conv2d.padding", "aten::conv3d", "aten::conv3d.padding",
        "aten::conv_transpose1d", "aten::conv_transpose2d.input", "aten::conv_transpose3d.input", "aten::convolution",
        "aten::_convolution", "aten::_convolution.deprecated", "aten::_convolution_mode"},
       conv_backward,
       conv_forward},
      {"linear", {"aten::linear"}, linear_backward, linear_forward},
      {"matmul", {"aten::addmm", "aten::mm", "aten::bmm", "aten::matmul"}, matmul_backward, matmul_forward},
      {"recurrent",
       {"aten::lstm.input", "aten::gru.input", "aten::rnn_tanh.input", "aten::rnn_relu.input"},
       nullptr,
       recurrent_forward},
      {"recurrent_cell",
       {"aten::lstm_cell", "aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell"},
       nullptr,
       recurrent_cell_forward},
      {"attention", {"aten::_native_multi_head_attention"}, attention_backward, attention_forward},
      {"norm", {"aten::batch_norm", "aten::instance_norm"}, norm_backward, norm_forward},

      // arithmetic
      {"add",
       {"aten::add.Tensor", "aten::add.Scalar", "aten::add_.Tensor", "aten::add_.Scalar", "aten::sub.Tensor", "aten::sub.Scalar",
        "aten::sub_.Tensor", "aten::sub_.Scalar"},
       add_backward,
       add_forward},
      {"multiply",
       {"aten::mul.Tensor", "aten::mul.Scalar", "aten::mul_.Tensor", "aten::mul_.Scalar", "aten::div.Tensor", "aten::div.Scalar",
        "aten::div_.Tensor", "aten::div_.Scalar", "aten::neg", "aten::neg_"},
       multiply_backward,
       multiply_forward},
      {"activation",
       {"aten::relu", "aten::relu_", "aten::relu6", "aten::relu6_", "aten::hardtanh", "aten::hardtanh_", "aten::clamp",
        "aten::clamp.Tensor", "aten::clamp_", "aten::clamp_.Tensor", "aten::clamp_min", "aten::clamp_min.Tensor",
        "aten::clamp_min_", "aten::clamp_min_.Tensor", "aten::clamp_max", "aten::clamp_max.Tensor", "aten::clamp_max_",
        "aten::clamp_max_.Tensor"},
       activation_backward,
       activation_forward},
      {"activation",
       {"aten::leaky_relu", "aten::leaky_relu_", "aten::prelu"},
       leaky_activation_backward,
       leaky_activation_forward},
      {"nonlinear",
       {"aten::gelu", "aten::gelu_", "aten::silu", "aten::silu_", "aten::hardswish", "aten::hardswish_", "aten::mish",
        "aten::mish_", "aten::tanh", "aten::tanh_", "aten::elu", "aten::elu_", "aten::selu", "aten::selu_", "aten::celu",
        "aten::celu_", "aten::erf", "aten::sqrt", "aten::square"},
       zero_preserving_backward,
       zero_preserving_forward},
      {"nonlinear",
       {"aten::sigmoid", "aten::sigmoid_", "aten::hardsigmoid", "aten::hardsigmoid_", "aten::softplus", "aten::log_sigmoid",
        "aten::softmax.int", "aten::log_softmax.int", "aten::exp", "aten::log"},
       nonlinear,
       nonlinear},

      // sizes and places
      {"concat", {"aten::cat", "aten::concat"}, concat_backward, concat_forward},
      {"concat", {"aten::stack"}, stack_backward, nullptr},
      {"pool",
       {"aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d", "aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d",
        "aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::adaptive_avg_pool3d", "aten::max_pool1d_with_indices",
        "aten::max_pool2d_with_indices", "aten::max_pool3d_with_indices", "aten::adaptive_max_pool1d",
        "aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d"},
       pool_backward,
       pool_forward},
      {"reduce", {"aten::mean", "aten::mean.dim", "aten::sum", "aten::sum.dim_IntList"}, reduce_backward, reduce_forward},
      {"interpolate",
       {"aten::upsample_nearest1d", "aten::upsample_nearest1d.vec", "aten::upsample_nearest2d", "aten::upsample_nearest2d.vec",
        "aten::upsample_nearest3d", "aten::upsample_nearest3d.vec", "aten::upsample_linear1d", "aten::upsample_linear1d.vec",
        "aten::upsample_bilinear2d", "aten::upsample_bilinear2d.vec", "aten::upsample_trilinear3d",
        "aten::upsample_trilinear3d.vec"},
       interpolate_backward,
       interpolate_forward},
      {"pad",
       {"aten::pad", "aten::constant_pad_nd", "aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d",
        "aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d"},
       pad_backward,
       pad_forward},
      {"permute", {"aten::permute", "aten::transpose.int", "aten::t"}, permute_backward, permute_forward},
      {"reshape",
       {"aten::view", "aten::reshape", "aten::reshape_as", "aten::view_as", "aten::unflatten.int"},
       reshape_backward,
       reshape_forward},
      {"flatten", {"aten::flatten.using_ints"}, flatten_backward, flatten_forward},
      {"expand", {"aten::expand", "aten::expand_as"}, nullptr, expand_forward},
      {"squeeze", {"aten::squeeze", "aten::squeeze.dim", "aten::squeeze.dims"}, squeeze_backward, squeeze_forward},
      {"squeeze", {"aten::unsqueeze"}, unsqueeze_backward, unsqueeze_forward},
      {"slice", {"aten::slice.Tensor", "aten::narrow", "aten::narrow.Tensor", "aten::select.int"}, slice_backward, slice_forward},
      {"slice",
       {"aten::chunk", "aten::split", "aten::split.Tensor", "aten::split.sizes", "aten::split_with_sizes", "aten::unbind.int"},
       nullptr,
       split_forward},
      {"slice", {"prim::ListUnpack", "aten::__getitem__.t"}, piece_backward, nullptr},
      {"rearrange", {"aten::flip", "aten::roll", "aten::index_select"}, rearrange_backward, rearrange_forward},
      {"shuffle", {"aten::channel_shuffle"}, channel_shuffle_backward, channel_shuffle_forward},
      {"shuffle", {"aten::pixel_shuffle"}, pixel_shuffle_backward, pixel_shuffle_forward},
      {"shuffle", {"aten::pixel_unshuffle"}, pixel_unshuffle_backward, pixel_unshuffle_forward},
      {"identity",
       {"aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout",
        "aten::contiguous", "aten::clone", "aten::detach", "aten::alias"},
       identity_backward,
       identity_forward},
      {"cast",
       {"aten::to.device", "aten::to.dtype", "aten::to.other", "aten::to.dtype_layout", "aten::to.prim_Device",
        "aten::to.prim_dtype", "aten::to.prim_other", "aten::type_as"},
       cast_backward,
       cast_forward},
      {"branch", {"prim::If"}, branch_backward, nullptr},
  };
  return rules;
}

const Rule* rule_for(const jit::Node* node) {
  static const auto by_overload = [] {
    std::unordered_map<c10::OperatorName, const Rule*> index;
    for (const Rule& rule : rule_table()) {
      for (const std::string_view overload : rule.operators) index.emplace(jit::parseName(std::string(overload)), &rule);
    }
    return index;
  }();
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr && !node->kind().is_prim()) return nullptr;
  const auto found =
      by_overload.find(schema != nullptr ? schema->operator_name() : c10::OperatorName(node->kind().toQualString(), ""));
  return found == by_overload.end() ? nullptr : found->second;
}

Pass to_input(const Site& site, const algebra::Affine& affine) {
  return {{{site.node->input(0), affine, Way::backward}}};
}

Pass to_output(const Site& site, const algebra::Affine& affine) {
  return {{{site.node->output(0), affine, Way::forward}}};
}

}  // namespace bnfold
