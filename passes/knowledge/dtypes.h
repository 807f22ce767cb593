// The dtype of a value, as far as layers with static weights tell it.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

#include "graph/parameter_store.h"

namespace bnfold {

// Convolutions, linear layers and matrix products: their input and their output have the dtype of their weight.
bool is_layer(const torch::jit::Node* node);

// The inputs of such an operator that have its dtype, or it raises: all tensors but the bias, which some add with another one.
std::vector<const torch::jit::Value*> operands_of_layer(const torch::jit::Node* node);

// What the argument `dtype` of the node says; nothing where that is computed, or left out.
std::optional<at::ScalarType> stated_dtype(const torch::jit::Node* node);

// The dtype of `value`, from the layers that it comes from, or from one that reads it; nothing where they don't tell it, or differ.
std::optional<at::ScalarType> dtype_of(const torch::jit::Value* value, const ParameterStore& store);

// Whether `node` is a cast, `to` or type_as, to the floating dtype that its first input surely has.
bool is_cast_to_same(const torch::jit::Node* node, const ParameterStore& store);

}  // namespace bnfold
