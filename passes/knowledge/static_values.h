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

// What `value` is where it is computed from parameters, buffers and constants by arithmetic, norms and reshaping only, as a normalized
// weight is, and from at least one parameter or buffer. Nothing where it is not, or where that takes more than 24 operators.
std::optional<StaticTensor> static_tensor(const ParameterStore& store, torch::jit::Value* value);

}  // namespace bnfold
