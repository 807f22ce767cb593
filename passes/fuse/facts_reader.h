// Goes through a graph and collects what is proven of its values.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fuse/facts.h"
#include "fuse/sizes.h"

namespace bnfold {

// In the order of the graph, again and again as long as what a later operator reads tells of an earlier value: a convolution with a float weight
// that its input is float, and has a batch.
class FactsReader {
 public:
  explicit FactsReader(Facts& facts) : facts_(facts), sizes_(*facts.sizes_) {}

  void read(const torch::jit::Graph& graph);

 private:
  using Fact = Facts::Fact;
  using Dtype = Facts::Dtype;
  using Shape = std::optional<std::vector<SizeId>>;

  void read(const torch::jit::Block* block);
  void read(const torch::jit::Node* node);
  Fact fact_of(const torch::jit::Node* node, const torch::jit::Value* output);
  Fact fact_of_branches(const torch::jit::Node* node, const torch::jit::Value* output);
  bool is_checked_within(const torch::jit::Node* node, const Fact& fact) const;
  static void rest_on(const Fact& other, Fact& fact);
  const Fact& known(const torch::jit::Value* value) const;

  // Numbers, and lists of them.
  std::optional<SizeId> number_of(const torch::jit::Value* value);
  std::optional<SizeId> computed_number(const torch::jit::Node* node);
  Shape list_of(at::IntArrayRef numbers);
  Shape list_of(const torch::jit::Value* list);
  Shape computed_list(const torch::jit::Node* node);

  // Tensors.
  Shape shape_of(const torch::jit::Node* node, const torch::jit::Value* output);
  Shape broadcast(const torch::jit::Node* node);
  Shape of_conv(const torch::jit::Node* conv);
  Shape of_pool(const torch::jit::Node* pool);
  Shape of_interpolation(const torch::jit::Node* node);
  Shape of_product(const torch::jit::Node* node);
  Shape of_concatenation(const torch::jit::Node* node);
  Shape of_view(const torch::jit::Node* node);
  Shape of_flatten(const torch::jit::Node* node);
  Shape of_expand(const torch::jit::Node* node);
  Shape of_slice(const torch::jit::Node* node);
  Shape of_reduction(const torch::jit::Node* node);
  Shape of_pad(const torch::jit::Node* node);
  Shape of_piece(const torch::jit::Node* split, size_t place);
  Shape rearranged(const torch::jit::Node* node);
  const torch::jit::Value* same_rank_as(const torch::jit::Node* node) const;

  Dtype dtype_of(const torch::jit::Node* node, Fact& fact);
  Dtype dtype_of_list(const torch::jit::Value* list, Dtype otherwise) const;
  Dtype dtype_of_product(const torch::jit::Node* node) const;
  Dtype dtype_of_cast(const torch::jit::Node* node, Dtype otherwise);
  std::optional<Dtype> dtype_of_operands(const torch::jit::Node* node, Fact& fact) const;
  void learn(const torch::jit::Node* node);
  void learn_dtype(const torch::jit::Node* reader, const torch::jit::Value* value, std::optional<at::ScalarType> dtype);

  void learn_size(const torch::jit::Node* reader, const torch::jit::Value* value, size_t dimension, int64_t number);
  void learn_channels(const torch::jit::Node* layer);

  Fact new_fact(const torch::jit::Value* value);
  Dtype known_dtype(at::ScalarType dtype);
  Dtype dtype_of_root(const torch::jit::Value* root);
  std::string name_of(const torch::jit::Value* value);
  Shape unknown_sizes(const torch::jit::Value* value, size_t rank);
  void assume(const torch::jit::Value* value, int64_t rank);

  Facts& facts_;
  Sizes& sizes_;
  bool learned_ = false;
  bool has_assumed_ = false;  // in this round: with it the ranks behind may be known
  std::unordered_map<const torch::jit::Value*, size_t> numbered_;
  std::unordered_map<const torch::jit::Value*, SizeId> numbers_;  // that ints, and tensors made of them, are
  std::unordered_map<const torch::jit::Value*, size_t> assumed_;
  std::unordered_map<SizeId, std::pair<const torch::jit::Value*, size_t>> roots_of_sizes_;
  std::map<std::pair<const torch::jit::Value*, size_t>, int64_t> learned_sizes_;
  std::map<at::ScalarType, int> known_dtypes_;
  std::unordered_map<const torch::jit::Value*, int> root_dtypes_;
  std::vector<const torch::jit::Value*> roots_;                                  // by dtype; null for a known one
  std::unordered_map<const torch::jit::Value*, at::ScalarType> learned_dtypes_;  // of roots
  std::unordered_set<const torch::jit::Value*> learned_inexact_;
};

}  // namespace bnfold
