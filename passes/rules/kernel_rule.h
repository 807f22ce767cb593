// What the rules of all operators with weights share: an affine behind the operator goes into its weight and bias.
#pragma once

#include <optional>

#include "algebra/kernel.h"
#include "rules/rule.h"

namespace bnfold {

// A static tensor that an operator reads, maybe through aten::t.
struct StaticOperand {
  torch::jit::Value* leaf;  // what the store knows
  at::Tensor tensor;        // as stored, undefined for None
  bool transposed = false;
};

std::optional<StaticOperand> static_operand(const ParameterStore& store, torch::jit::Value* value);

// The name of a static value in its module: "weight" of "layer1.0.conv1.weight".
std::string attribute_name(const ParameterStore& store, const torch::jit::Value* leaf);

// Which inputs of an operator are its weight and bias.
struct KernelInputs {
  size_t weight;
  std::optional<size_t> bias;  // nothing where the operator has no such input: a shift is added behind it
  algebra::KernelLayout layout = algebra::KernelLayout::output_first;
  int64_t groups = 1;
};

// Absorbs the affine of `site`, whose channels lie along `channel_dimension` of the output.
//
// Conditions, in this order:
//   the affine varies along the channels only                            affine_varies_elsewhere
//   weight and bias are parameters or constants                          weight_not_static
//   they are on the norm's device                                        devices_differ
//   dense float, double, half or bfloat16 tensors                        weight_dtype_unsupported
//   of the norm's dtype, or narrower ones behind a float norm            dtypes_differ
//   with as many output channels as the norm                             channels_differ
//   and finite values stay finite in the weights' dtype                  folded_weight_not_finite
// Where nothing makes the rank of the output certain, the folded graph checks the rank of input 0, which is the same.
Answer absorb_into_kernel(const Site& site, const KernelInputs& inputs, int64_t channel_dimension);

}  // namespace bnfold
