#include "plan/checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/graph_walk.h"
#include "graph/raise_if.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Where the check stands: behind what makes the value, or at the start of the block that reads it from outside.
jit::Node* place_of(const RankCheck& check) {
  jit::Node* node = check.value->node();
  const bool is_inner = node->owningBlock() == check.block && node->kind() != jit::prim::Param;
  return is_inner ? node->next() : *check.block->nodes().begin();
}

bool stands_before(const RankCheck& one, const RankCheck& other) {
  jit::Node* first = place_of(one);
  jit::Node* second = place_of(other);
  return first != second && first->isBefore(second);
}

}  // namespace

std::variant<std::vector<RankCheck>, Decline> plan_checks(const Norm& norm, const std::vector<AskedRanks::Need>& needs,
                                                          const Ranks& ranks) {
  std::vector<RankCheck> checks;
  for (const AskedRanks::Need& need : needs) {
    const bool is_outside = need.block != norm.node()->owningBlock() && is_inside(norm.node()->owningBlock(), need.block);
    if (is_outside) {
      return Decline{Reason::rank_unknown, need.value->node(), "its rank would be checked where the norm may not be reached"};
    }
    const auto [value, difference] = ranks.witness(need.value, need.block);
    const RankCheck check{value, const_cast<jit::Block*>(need.block), need.rank - difference};
    const auto is_same = [&](const RankCheck& other) {
      return other.value == check.value && other.block == check.block && other.rank == check.rank;
    };
    if (std::none_of(checks.begin(), checks.end(), is_same)) checks.push_back(check);
  }
  std::stable_sort(checks.begin(), checks.end(), stands_before);
  return checks;
}

std::optional<Decline> why_not_unchecked(const std::vector<RankCheck>& checks, const Ranks& ranks) {
  for (const RankCheck& check : checks) {
    const auto known = ranks.of(check.value, check.block);
    if (known && known->number == check.rank && known->strength != Strength::assumed) continue;
    return Decline{Reason::rank_unknown, check.value->node(),
                   "its rank would be checked as the module runs, which is lost for this target; example inputs tell it"};
  }
  return std::nullopt;
}

void insert(const RankCheck& check, Ranks& ranks) {
  const auto known = ranks.of(check.value, check.block);
  if (known && known->strength == Strength::proven && known->number == check.rank) return;
  jit::Graph* graph = check.value->owningGraph();
  const jit::WithInsertPoint before(place_of(check));
  jit::Value* dimensions =
      graph->insertNode(graph->create(jit::aten::dim, {check.value}))->output()->setType(c10::IntType::get());
  jit::Value* differs =
      graph->insertNode(graph->create(jit::aten::ne, {dimensions, graph->insertConstant(check.rank)}))->output();
  differs->setType(c10::BoolType::get());
  const std::string message =
      fmt::format("{} of rank {}; to run it on another rank, fold the original module with example inputs of that rank",
                  check.subject, check.rank);
  insert_raise_if(*graph, differs, message);
  ranks.prove(check.value, check.block, check.rank);
}

}  // namespace bnfold
