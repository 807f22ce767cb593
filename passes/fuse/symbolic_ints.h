// The ints of a graph, and lists of them, as numbers that are computed from the sizes of its inputs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>

#include "fuse/fact.h"
#include "fuse/sizes.h"

namespace bnfold {

class SymbolicInts {
 public:
  SymbolicInts(Sizes& sizes, const FactMap& facts) : sizes_(sizes), facts_(facts) {}

  // An int, or a tensor that is made of one; nothing for other values.
  std::optional<SizeId> number(const torch::jit::Value* value);

  // A list of ints; nothing where its length is not known.
  SizeList list(const torch::jit::Value* value);
  SizeList list(at::IntArrayRef numbers);

  // The list that `node` makes; nothing where something may write into it.
  SizeList list_made_by(const torch::jit::Node* node);

  // What nothing is known of.
  SizeId unknown_size(const torch::jit::Value* value, size_t dimension);
  SizeList unknown_sizes(const torch::jit::Value* value, size_t rank);

  // A name of its own for each value.
  std::string name_of(const torch::jit::Value* value);

  // What was read of facts that are no more is forgotten.
  void start_again() { numbers_.clear(); }

 private:
  std::optional<SizeId> computed(const torch::jit::Value* value);
  std::optional<SizeId> made_by(const torch::jit::Node* node);
  std::optional<SizeId> size_read_by(const torch::jit::Node* node) const;
  std::optional<SizeId> element_read_by(const torch::jit::Node* node);
  std::optional<SizeId> arithmetic(const torch::jit::Node* node);
  SizeList construct(const torch::jit::Node* node);
  SizeList slice(const torch::jit::Node* node);
  SizeList joined(const torch::jit::Node* node);

  Sizes& sizes_;
  const FactMap& facts_;
  std::unordered_map<const torch::jit::Value*, size_t> numbered_;
  std::unordered_map<const torch::jit::Value*, SizeId> numbers_;
};

}  // namespace bnfold
