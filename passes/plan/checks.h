// The checks that go with a fold: what it rests on and nothing proves is asked while the module runs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "knowledge/asked_ranks.h"
#include "knowledge/decline.h"
#include "knowledge/find_norms.h"

namespace bnfold {

// if dim(value) != rank: raise, as early as `block` can ask it.
struct RankCheck {
  torch::jit::Value* value;
  torch::jit::Block* block;
  int64_t rank;
  std::string_view subject = "a batch norm was folded into this layer for inputs";  // what the error says that it was made for
};

// The checks without which a fold of `norm` is not right, one for all values whose ranks follow from each other, in the order of the graph.
// Declines (rank_unknown) where runs that don't reach the norm would be checked as well.
std::variant<std::vector<RankCheck>, Decline> plan_checks(const Norm& norm, const std::vector<AskedRanks::Need>& needs,
                                                          const Ranks& ranks);

// Where nothing can be checked: why a fold with these checks is not right without them. A rank that an example tells is that of what is
// converted.
std::optional<Decline> why_not_unchecked(const std::vector<RankCheck>& checks, const Ranks& ranks);

// Puts the check into the graph, unless an earlier one has proven the rank by now; `ranks` learns it.
void insert(const RankCheck& check, Ranks& ranks);

}  // namespace bnfold
