// The rank of each tensor in a graph, as far as it can be known without running it.
//
// Facts are of three strengths, and the strongest wins:
//   proven    by an operator (mm gives 2, view to a list of 3 sizes gives 3) or by a check that raises otherwise, as the ones that
//             scripted batch norms carry;
//   hinted    by example inputs or by a trace;
//   assumed   for convolutions and pooling, which take a value with or without one: a batch dimension in front.
// Operators that keep the rank tie their input to their output, so one fact reaches all values of a chain, in both directions. What is read
// in a block holds in the runs that reach it, and so does the answer to a question.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "knowledge/rank_classes.h"

namespace bnfold {

class Ranks {
 public:
  // The rank of a parameter or constant, nothing for other values.
  using StaticRank = std::function<std::optional<int64_t>(const torch::jit::Value*)>;

  // `hints` are the ranks of the graph's inputs, self left out; a shorter list leaves the rest open.
  // Without `checks_prove` nothing is learned from what raises an error for another rank, as if x.dim() != 4: raise.
  // With `types_prove` the graph is that of an exported program: the ranks in the types of its values are those of every run.
  Ranks(const torch::jit::Graph& graph, const std::vector<std::optional<int64_t>>& hints, const StaticRank& static_rank,
        bool checks_prove = true, bool types_prove = false);

  // The rank of `value` in the runs that reach `block`, which is its own block or one inside: from the strongest knowledge there is.
  std::optional<Rank> of(const torch::jit::Value* value, const torch::jit::Block* block) const;

  // Whether it is proven that `value` has at most so many dimensions in the runs that reach `block`.
  bool is_at_most(const torch::jit::Value* value, const torch::jit::Block* block, int64_t most) const;

  // Whether `value` has fewer dimensions than the names of operators on the way suggest, as the result of conv2d on [C, H, W].
  bool is_unbatched(const torch::jit::Value* value) const;

  // Whether an example or a trace tells the rank of an input.
  bool has_hints() const;

  // Whether the types of the values prove their ranks, so that nothing is left to check.
  bool are_in_types() const { return types_prove_; }

  // Whether dimensions are added or dropped in place. Then a value has no rank that could be told.
  bool change_in_place() const { return change_in_place_; }

  // The first value to ask for its rank in the place of `value`, in the runs that reach `block`, which can read both.
  RankClasses::Witness witness(const torch::jit::Value* value, const torch::jit::Block* block) const {
    return classes_.witness(value, block);
  }

  // Takes note that `value` is new and has the rank of `like`.
  void adopt(const torch::jit::Value* value, const torch::jit::Value* like) { classes_.adopt(value, like); }

  // Takes note that `value` is gone.
  void forget(const torch::jit::Value* value) { classes_.forget(value); }

  // Takes note that `block` now raises an error unless `value` has this rank.
  void prove(const torch::jit::Value* value, const torch::jit::Block* block, int64_t rank);

 private:
  friend class RankReader;

  void read_types(const torch::jit::Graph& graph);

  std::vector<std::optional<int64_t>> hints_;
  bool change_in_place_;
  bool types_prove_;
  RankClasses classes_;
};

// The rank of the values that this convolution takes and makes, with a batch; nothing where it is none, or the arguments don't tell.
std::optional<int64_t> batched_rank(const torch::jit::Node* convolution);

}  // namespace bnfold
