// The changes of a graph that a fold consists of.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <variant>
#include <vector>

namespace bnfold {

// Input `input` of `node` becomes a static tensor, beside the static value `beside` under `name`, read through copies of `views`.
struct SetInput {
  torch::jit::Node* node;
  size_t input;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
  std::vector<torch::jit::Node*> views = {};
};

// Input `input` of `node` becomes this number.
struct SetNumber {
  torch::jit::Node* node;
  size_t input;
  double number;
};

// The first output of `node` gets a static tensor added, beside the static value `beside` under `name`.
struct AddToOutput {
  torch::jit::Node* node;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
};

// `node` becomes min(max(its input, lower), upper), the bounds beside the norm; an undefined bound is left out.
struct Bound {
  torch::jit::Node* node;
  at::Tensor lower;
  at::Tensor upper;
};

// `node` goes, and `value` takes the place of its first output.
struct Replace {
  torch::jit::Node* node;
  torch::jit::Value* value;
};

using Edit = std::variant<SetInput, SetNumber, AddToOutput, Bound, Replace>;

}  // namespace bnfold
