// An affine that is written out, as a frozen batch norm or a layer scale: (x - mean) / sqrt(var + eps) * weight + bias.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "algebra/affine.h"
#include "graph/parameter_store.h"

namespace bnfold {

// Sums and products in a row, each of what the one before makes and of what is the same in every run.
struct WrittenAffine {
  std::vector<torch::jit::Node*> nodes;  // in the order of the graph; nobody but the next one reads what one makes
  size_t input_place;                    // which input of the first node the affine is of
  torch::jit::Value* leaf;               // a static tensor that the last product reads
  algebra::Affine affine;                // broadcasts against the input, and varies along one dimension at most
  at::ScalarType dtype;                  // of the static tensors
  bool scales_channels;                  // whether there is a factor of several elements
  bool adds;                             // whether a static tensor with dimensions is added
  bool standardizes;                     // whether it is (x - mean) / deviation, and no more
};

// Whether `node` may be a product that such an affine is found by.
bool may_scale(const torch::jit::Node* node);

// The affine of which `product` is the first product with a static tensor; nothing where it is none.
std::optional<WrittenAffine> read_written_affine(torch::jit::Node* product, const ParameterStore& store);

}  // namespace bnfold
