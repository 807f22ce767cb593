// What the rules of all operators with weights share: an affine behind or before the operator goes into its weight and bias.
#pragma once

#include <optional>

#include "algebra/kernel.h"
#include "rules/rule.h"

namespace bnfold {

// A static tensor that an operator reads, maybe transposed or cast to the dtype of another value.
struct StaticOperand {
  torch::jit::Value* leaf;                    // what the store knows
  at::Tensor tensor;                          // as stored, undefined for None
  std::vector<torch::jit::Node*> views = {};  // what stands between the leaf and the operator, aten::t and aten::to
  bool computed = false;                      // from the leaf and others, as a normalized weight is

  bool is_transposed() const;
};

std::optional<StaticOperand> static_operand(const ParameterStore& store, torch::jit::Value* value);

// The static tensor that input `input` of the site's node is, as the plan so far makes it.
std::optional<StaticOperand> planned_operand(const Site& site, size_t input);

// The static matrix that input `input` of the site's node repeats for each element of a batch, as W.expand(N, I, O), as the plan so far makes it.
std::optional<StaticOperand> planned_repeated_matrix(const Site& site, size_t input);

// The name of a static value in its module: "weight" of "layer1.0.conv1.weight".
std::string attribute_name(const ParameterStore& store, const torch::jit::Value* leaf);

// The name that a new bias gets beside a weight: "bias" for "weight".
std::string bias_name(const std::string& weight_name);

// Which inputs of an operator are its weight and bias.
struct KernelInputs {
  size_t weight;
  std::optional<size_t> bias;  // nothing where the operator has no such input: a shift is added behind it
  algebra::KernelLayout layout = algebra::KernelLayout::output_first;
  int64_t groups = 1;
  bool repeated = false;  // whether the weight is a matrix that is repeated for each element of a batch
};

// The weights of a layer, and where they come from.
struct Layer {
  algebra::Kernel kernel;
  StaticOperand weight;
  std::optional<StaticOperand> bias;
};

// Reads the weights of the site's node.
//
// Conditions, in this order:
//   weight and bias are parameters or constants, or computed from such   weight_not_static
//   they are on the norm's device                                        devices_differ
//   dense float, double, half or bfloat16 tensors                        weight_dtype_unsupported
//   of the norm's dtype, or narrower ones beside a float norm            dtypes_differ
//   and fit each other                                                   channels_differ
std::variant<Layer, Decline> read_layer(const Site& site, const KernelInputs& inputs);

// The edits that give the site's node the weights `folded` in place of those of `layer`; declines where a finite value would leave the
// range of the dtype (folded_weight_not_finite).
Answer write_layer(const Site& site, const KernelInputs& inputs, const Layer& layer, const algebra::Kernel& folded);

// Absorbs the affine behind the site's node, whose channels lie along `channel_dimension` of the output: it varies along these only
// (affine_varies_elsewhere), there are as many of them as outputs (channels_differ), and nothing is added behind the node by the plan so far
// (value_has_other_readers).
Answer absorb_into_outputs(const Site& site, const KernelInputs& inputs, int64_t channel_dimension);

// Absorbs the affine missing before the site's node, likewise. `takes_shift` tells whether every output reads every tap, as a shift needs it
// (shift_at_padding).
Answer absorb_into_inputs(const Site& site, const KernelInputs& inputs, int64_t channel_dimension, bool takes_shift);

// The site's node, a convolution, takes in that an affine of its input is added to its output, x itself or a norm of x:
//     W'[o, i, k] = W[o, i, k] + scale[o] where k is the middle tap and i the input that belongs to o,   b'[o] = b[o] + shift[o]
// for a constant number of groups (operand_not_constant), where the middle tap reads what is added: stride 1, an odd kernel, and zeros around
// the input that keep its size; and with as many outputs as inputs and channels (channels_differ).
Answer absorb_identity(const Site& site);

}  // namespace bnfold
