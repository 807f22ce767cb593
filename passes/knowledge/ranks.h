// The rank of each tensor in a graph, as far as it can be known without running it.
//
// Three kinds of knowledge, the stronger one wins:
//   proven    by an operator (mm gives 2, view to a list of 3 sizes gives 3) or by a check that raises otherwise, as the ones that
//             scripted batch norms carry;
//   hinted    by example inputs or by a trace;
//   assumed   for convolutions: a batch dimension in front.
// Operators that keep the rank tie their input to their output, so one fact reaches all values of a chain, in both directions.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

namespace bnfold {

class Ranks {
 public:
  // The rank of a parameter or constant, nothing for other values.
  using StaticRank = std::function<std::optional<int64_t>(const torch::jit::Value*)>;

  // `hints` are the ranks of the graph's inputs, self left out; a shorter list leaves the rest open.
  Ranks(const torch::jit::Graph& graph, const std::vector<std::optional<int64_t>>& hints, StaticRank static_rank);

  // The rank of `value`, from the strongest knowledge there is.
  std::optional<int64_t> of(const torch::jit::Value* value) const;

  // Whether nobody needs to check the rank of `value`: it is proven, or the hints confirm what a convolution assumes.
  bool is_certain(const torch::jit::Value* value) const;

  // Whether both have the same rank, whatever it is.
  bool are_one(const torch::jit::Value* value, const torch::jit::Value* other) const;

  // Whether `value` has fewer dimensions than the names of operators on the way suggest, as the result of conv2d on [C, H, W].
  bool is_unbatched(const torch::jit::Value* value) const;

  // Whether hints were given: then a rank that is still unknown is not to be guessed.
  bool has_hints() const { return has_hints_; }

  // Takes note that `value` is new and has the rank of `like`.
  void adopt(const torch::jit::Value* value, const torch::jit::Value* like);

  // Takes note that `value` is gone.
  void forget(const torch::jit::Value* value) { class_of_.erase(value); }

  // Takes note that the graph now raises an error unless `value` has this rank.
  void prove(const torch::jit::Value* value, int64_t rank);

 private:
  enum Knowledge { proven, hinted, assumed };

  void read(const torch::jit::Block* block);
  void read(const torch::jit::Node* node);
  void read_broadcast(const torch::jit::Node* node);
  void read_reduction(const torch::jit::Node* node);
  void read_check(const torch::jit::Node* branch);
  void tie(const torch::jit::Value* a, const torch::jit::Value* b);
  void learn(const torch::jit::Value* value, std::optional<int64_t> rank, Knowledge knowledge);
  void learn_from(const torch::jit::Value* source, int64_t difference, const torch::jit::Value* value);
  std::optional<size_t> find_root(const torch::jit::Value* value) const;
  size_t root(const torch::jit::Value* value);
  size_t root(size_t index) const;

  using Known = std::array<std::optional<int64_t>, 3>;  // by knowledge

  StaticRank static_rank_;
  bool has_hints_ = false;
  bool types_tell_ = false;  // the types in the graph are those of a trace on inputs of the hinted ranks
  std::unordered_map<const torch::jit::Value*, size_t> class_of_;  // values of one rank share a class
  std::vector<size_t> parent_;                                     // by class
  std::vector<Known> known_;                                       // by class
};

}  // namespace bnfold
