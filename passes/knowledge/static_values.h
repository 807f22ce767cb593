// Computes what a graph computes of static tensors and constants alone.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>

#include "graph/parameter_store.h"

namespace bnfold {

// A tensor that is the same in every run, and a parameter or buffer that it is made of, a trainable one if there is any.
struct StaticTensor {
  at::Tensor tensor;
  torch::jit::Value* leaf;
};

// What `value` is where deterministic operators compute it from parameters, buffers and constants alone, as a normalized weight, and from at
// least one parameter or buffer; it may follow the dtype and the device of another value where these are known, as weight.to(x.dtype). Nothing where
// it is not, or where that takes more than 96 operators.
std::optional<StaticTensor> static_tensor(const ParameterStore& store, torch::jit::Value* value);

// Whether static_tensor may compute it: what begins with an input of the graph is no such value. This asks for no memory, and at once.
bool may_be_static(const torch::jit::Value* value);

}  // namespace bnfold
