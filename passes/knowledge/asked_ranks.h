// The ranks that one attempt to fold a norm asks for. What it takes and nothing proves is noted, so that the folded graph can check it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "knowledge/ranks.h"

namespace bnfold {

class AskedRanks {
 public:
  // For a norm in `block`. What is made before that block and read there alone matters in the runs that reach it. With `rescales`, values
  // that others read are changed too, and matter wherever they are made.
  AskedRanks(const Ranks& ranks, const torch::jit::Block* block, bool rescales = false)
      : ranks_(ranks), block_(block), rescales_(rescales) {}

  // The rank of `value`, from the strongest knowledge there is.
  std::optional<int64_t> of(const torch::jit::Value* value) const;

  // Whether the types of the values prove their ranks and sizes, as those of an exported program do.
  bool are_in_types() const { return ranks_.are_in_types(); }

  // Whether `value` may have this rank: it is not known to have another.
  bool allow(const torch::jit::Value* value, int64_t rank) const;

  // Whether `value` has at most so many dimensions.
  bool is_at_most(const torch::jit::Value* value, int64_t most) const;

  // A rank that was taken without proof, in the runs that reach `block`.
  struct Need {
    const torch::jit::Value* value;
    const torch::jit::Block* block;
    int64_t rank;
  };
  const std::vector<Need>& needs() const { return needs_; }

 private:
  const torch::jit::Block* block_of(const torch::jit::Value* value) const;
  void need(const torch::jit::Value* value, int64_t rank) const;

  const Ranks& ranks_;
  const torch::jit::Block* block_;
  const bool rescales_;
  mutable std::vector<Need> needs_;
};

}  // namespace bnfold
