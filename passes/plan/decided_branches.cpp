#include "plan/decided_branches.h"

#include <algorithm>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/raise_if.h"
#include "graph/take_branch.h"
#include "knowledge/deciding_rank.h"
#include "knowledge/static_values.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A check, which may be what proves the rank, or a part of one: if dim(x) != 2 and dim(x) != 3: raise.
bool is_check(const jit::Node* condition) {
  const auto branches = condition->blocks();
  if (std::any_of(branches.begin(), branches.end(), [](const jit::Block* branch) { return raises(branch); })) return true;
  return std::any_of(condition->outputs().begin(), condition->outputs().end(), [](const jit::Value* result) {
    return std::any_of(result->uses().begin(), result->uses().end(),
                       [](const jit::Use& use) { return use.user->kind() == jit::prim::If && is_check(use.user); });
  });
}

// What it asks for, where that may decide it: a check is decided by the rank of a weight alone.
std::optional<DecidingRank> rank_asked_for(const jit::Node* node) {
  const auto deciding = node->kind() == jit::prim::If ? deciding_rank(node) : std::nullopt;
  if (!deciding || (is_check(node) && !may_be_static(deciding->value))) return std::nullopt;
  return deciding;
}

// Whether a branch that was taken makes this true or false, as it may make one value of a query and its key; nothing where it does not.
std::optional<bool> decision(const jit::Value* condition) {
  const jit::Node* node = condition->node();
  if (node->kind() == jit::aten::__not__) {
    const auto negated = constant_bool(node->input());
    return negated ? std::optional<bool>(!*negated) : std::nullopt;
  }
  const bool asks = node->kind() == jit::aten::__is__ || node->kind() == jit::aten::__isnot__;
  if (asks && node->input(0) == node->input(1)) return node->kind() == jit::aten::__is__;
  return constant_bool(condition);
}

// The branch that every run takes; null where that is not proven.
jit::Block* taken_branch(jit::Node* condition, const Ranks& ranks, const Ranks::StaticRank& static_rank) {
  if (condition->kind() != jit::prim::If) return nullptr;
  if (const auto decided = decision(condition->input())) return condition->blocks().at(*decided ? 0 : 1);
  const auto deciding = rank_asked_for(condition);
  if (!deciding) return nullptr;
  auto proven = static_rank(deciding->value);
  if (!proven && is_check(condition)) return nullptr;
  const auto known = ranks.of(deciding->value, condition->owningBlock());
  if (!proven && known && known->strength == Strength::proven) proven = known->number;
  if (!proven) return nullptr;
  const bool first = (*proven == deciding->rank) == deciding->takes_first;
  return condition->blocks().at(first ? 0 : 1);
}

}  // namespace

bool has_rank_condition(const jit::Graph& graph) {
  return any_node(graph, [](const jit::Node* node) { return rank_asked_for(node).has_value(); });
}

bool take_decided_branches(jit::Graph& graph, const Ranks& ranks, const Ranks::StaticRank& static_rank) {
  if (ranks.change_in_place()) return false;
  for (bool taken = false;; taken = true) {
    jit::Node* condition = nullptr;
    for_each_node(graph.block(), [&](jit::Node* node) {
      if (condition == nullptr && taken_branch(node, ranks, static_rank) != nullptr) condition = node;
    });
    if (condition == nullptr) return taken;
    jit::Node* asks = condition->input()->node();
    take_branch(condition, taken_branch(condition, ranks, static_rank));
    if (!asks->hasUses() && !asks->hasSideEffects()) asks->destroy();
  }
}

}  // namespace bnfold
