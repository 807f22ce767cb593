// A TorchScript graph as text, with what it takes to run it: attributes, inputs, and the seed of their values.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bnfold::fuzz {

using Sizes = std::vector<int64_t>;

// What a tensor holds: normal values; scales of both signs and some zeros; shifts from -1 to 1; variances from 0.25 to 4.
enum class Content { values, scales, shifts, variances };

struct TensorSpec {
  Content content = Content::values;
  Sizes sizes;
};

struct TensorAttribute {
  std::string path;  // dotted: "block.conv.weight"
  TensorSpec tensor;
  bool is_buffer = false;
};

// An attribute that is no tensor: a number, a flag, a list of numbers, or None.
struct PlainAttribute {
  std::string path;
  c10::IValue value;
};

struct IrProgram {
  std::string graph;  // its first input is self
  std::vector<TensorAttribute> tensors;
  std::vector<PlainAttribute> plain;
  std::vector<TensorSpec> inputs;  // of the graph, self left out
  bool knows_ranks = false;        // whether a fold is told the ranks of the inputs
  bool shares_inputs = false;      // whether inputs of the same sizes are one tensor
  int64_t seed = 0;                // of every value
};

using Inputs = std::vector<c10::IValue>;

// Values for the inputs of a program, in double. Inputs of more than one dimension are `larger` along the first one.
Inputs make_inputs(const IrProgram& program, int64_t larger = 0);

// A module with the graph as its method forward. Throws what the parser of IR throws.
torch::jit::Module make_module(const IrProgram& program);

// The graph of `module`'s forward with a constant in the place of each attribute, as one that was frozen; several outputs instead of a tuple.
// Null where it assigns attributes.
std::shared_ptr<torch::jit::Graph> with_constants(const torch::jit::Module& module);

// The program as C++ that fills an IrProgram.
std::string as_code(const IrProgram& program);

}  // namespace bnfold::fuzz
