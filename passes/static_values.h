// Computes what a graph computes of static tensors and constants alone.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>

#include "parameter_store.h"

namespace bnfold {

// A tensor that is the same in every run, and a parameter or buffer that it is made of.
struct StaticTensor {
  at::Tensor tensor;
  torch::jit::Value* leaf;
};

// What `value` is where it is computed from parameters, buffers and constants by arithmetic and reshaping only, and from at least one
// parameter or buffer. Nothing where it is not, or where that is longer than a norm would be.
std::optional<StaticTensor> static_tensor(const ParameterStore& store, torch::jit::Value* value);

}  // namespace bnfold
