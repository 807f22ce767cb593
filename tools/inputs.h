// Inputs for a module, made from descriptions on the command line.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// One argument of forward: "1,3,224,224" or "1,3,224,224:half".
struct InputShape {
  std::vector<int64_t> sizes;
  std::optional<at::ScalarType> dtype;  // that of the module's parameters where not given
};

// Reads a description; throws std::invalid_argument with a sentence where it is none.
InputShape input_shape(const std::string& text);

// Random arguments for forward on the module's device, a tuple a seed: normal for floating dtypes, 0 and 1 for the others.
std::vector<c10::IValue> random_inputs(const torch::jit::Module& module, const std::vector<InputShape>& shapes, uint64_t seed);
