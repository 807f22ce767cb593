// Goes through a graph and collects what is proven of its values.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <map>
#include <unordered_map>
#include <utility>

#include "fuse/dtype_reader.h"
#include "fuse/fact.h"
#include "fuse/facts.h"
#include "fuse/shape_reader.h"
#include "fuse/symbolic_ints.h"

namespace bnfold {

// In the order of the graph, again and again as long as what a later operator reads tells of an earlier value: a convolution with a float weight
// that its input is float, and has a batch.
class FactsReader {
 public:
  explicit FactsReader(Facts& facts)
      : facts_(facts),
        sizes_(*facts.sizes_),
        ints_(sizes_, facts.facts_),
        shapes_(sizes_, ints_, facts.facts_),
        dtypes_(facts.facts_) {}

  void read(const torch::jit::Graph& graph);

 private:
  void read(const torch::jit::Block* block);
  void read(const torch::jit::Node* node);
  Fact new_fact(const torch::jit::Value* value);
  Fact fact_of(const torch::jit::Node* node, const torch::jit::Value* output);
  Fact fact_of_branches(const torch::jit::Node* node, const torch::jit::Value* output);
  void read_tensor(const torch::jit::Node* node, const torch::jit::Value* output, Fact& fact);
  bool is_checked_within(const torch::jit::Node* node, const Fact& fact) const;

  // What an operator tells of what it reads.
  void learn(const torch::jit::Node* node);
  void learn_channels(const torch::jit::Node* layer);
  void learn_size(const torch::jit::Node* reader, const torch::jit::Value* value, size_t dimension, int64_t number);
  void assume_batch(const torch::jit::Node* conv);
  void assume(const torch::jit::Value* value, int64_t rank);

  const Fact& known(const torch::jit::Value* value) const { return facts_.facts_.of(value); }

  using Place = std::pair<const torch::jit::Value*, size_t>;  // a value, and one of its dimensions

  Facts& facts_;
  Sizes& sizes_;
  SymbolicInts ints_;
  ShapeReader shapes_;
  DtypeReader dtypes_;
  bool learned_ = false;
  bool has_assumed_ = false;  // in this round: with it the ranks behind may be known
  std::unordered_map<const torch::jit::Value*, size_t> assumed_;
  std::unordered_map<SizeId, Place> roots_of_sizes_;
  std::map<Place, int64_t> learned_sizes_;
};

}  // namespace bnfold
