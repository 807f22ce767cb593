// The sizes of a tensor, from those of the tensors that it is made of.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/fact.h"
#include "fuse/sizes.h"
#include "fuse/symbolic_ints.h"

namespace bnfold {

// Asks the operator table which way an operator goes: there is one function for each. The sizes of what is not listed are not known.
class ShapeReader {
 public:
  ShapeReader(Sizes& sizes, SymbolicInts& ints, const FactMap& facts) : sizes_(sizes), ints_(ints), facts_(facts) {}

  // Those of the first output of `node`, or of an element of the list that it takes apart; nothing where the rank is not known.
  SizeList of(const torch::jit::Value* output);

 private:
  const SizeList& input(const torch::jit::Node* node, size_t place = 0) const;

  SizeList of_broadcast(const torch::jit::Node* node);
  SizeList of_concatenation(const torch::jit::Node* node);
  SizeList of_stack(const torch::jit::Node* node);
  SizeList of_reduction(const torch::jit::Node* node);

  // Layers: shapes_of_layers.cpp
  SizeList of_conv(const torch::jit::Node* conv);
  SizeId behind_window(SizeId size, int64_t window, int64_t stride, int64_t padding, int64_t dilation);
  SizeList of_pool(const torch::jit::Node* pool);
  SizeList of_adaptive_pool(const torch::jit::Node* pool);
  SizeList of_interpolation(const torch::jit::Node* node);
  SizeList of_scaling(const torch::jit::Node* node);
  SizeList of_linear(const torch::jit::Node* node);
  SizeList of_product(const torch::jit::Node* node);
  SizeList of_attention(const torch::jit::Node* node);
  SizeList of_embedding(const torch::jit::Node* node);
  SizeList of_pad(const torch::jit::Node* node);

  // Views: shapes_of_views.cpp
  SizeList given(const torch::jit::Node* node);
  SizeList listed(const torch::jit::Node* node);
  SizeList expanded(const torch::jit::Node* node);
  SizeList repeated(const torch::jit::Node* node);
  SizeList flattened(const torch::jit::Node* node);
  SizeList cut(const torch::jit::Node* node);
  SizeId sliced(const torch::jit::Node* node, SizeId size, size_t dimension);
  SizeList selected(const torch::jit::Node* node);
  SizeList of_piece(const torch::jit::Node* split, size_t piece);
  SizeList rearranged(const torch::jit::Node* node);
  SizeList unsqueezed(const torch::jit::Node* node);
  SizeList squeezed(const torch::jit::Node* node);
  SizeList shuffled(const torch::jit::Node* node);
  SizeList unshuffled(const torch::jit::Node* node);

  Sizes& sizes_;
  SymbolicInts& ints_;
  const FactMap& facts_;
};

}  // namespace bnfold
