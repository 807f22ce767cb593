#include "plan/decided_branches.h"

#include "graph/graph_walk.h"
#include "graph/take_branch.h"
#include "knowledge/deciding_rank.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool may_raise(const jit::Node* condition) {
  bool raises = false;
  for (const jit::Block* branch : condition->blocks()) {
    for_each_node(branch, [&raises](const jit::Node* node) { raises |= node->kind() == jit::prim::RaiseException; });
  }
  return raises;
}

// The branch that every run takes; null where that is not proven.
jit::Block* taken_branch(jit::Node* condition, const Ranks& ranks) {
  const auto deciding = deciding_rank(condition);
  if (!deciding || may_raise(condition)) return nullptr;
  const auto rank = ranks.of(deciding->value, condition->owningBlock());
  if (!rank || rank->strength != Strength::proven) return nullptr;
  const bool first = (rank->number == deciding->rank) == deciding->takes_first;
  return condition->blocks().at(first ? 0 : 1);
}

}  // namespace

bool take_decided_branches(jit::Graph& graph, const Ranks& ranks) {
  for (bool taken = false;; taken = true) {
    jit::Node* condition = nullptr;
    for_each_node(graph.block(), [&](jit::Node* node) {
      if (condition == nullptr && node->kind() == jit::prim::If && taken_branch(node, ranks) != nullptr) condition = node;
    });
    if (condition == nullptr) return taken;
    take_branch(condition, taken_branch(condition, ranks));
  }
}

}  // namespace bnfold
