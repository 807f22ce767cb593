#include "plan/checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/graph_walk.h"
#include "graph/raise_if.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

Decline unknown(const jit::Node* node, std::string detail) {
  return {Reason::rank_unknown, node, std::move(detail)};
}

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
    if (is_outside) return unknown(need.value->node(), "its rank would have to be checked where the norm may not be reached");
    const auto witness = ranks.witness(need.value, need.block);
    if (!witness) return unknown(need.value->node(), "its rank can't be checked where the norm stands");
    const RankCheck check{witness->value, const_cast<jit::Block*>(need.block), need.rank - witness->difference};
    const auto found = std::find_if(checks.begin(), checks.end(), [&](const RankCheck& other) {
      return other.value == check.value && other.block == check.block;
    });
    if (found == checks.end()) {
      checks.push_back(check);
    } else if (found->rank != check.rank) {
      return unknown(need.value->node(), fmt::format("a rank of {} and of {} would be needed", found->rank, check.rank));
    }
  }
  std::stable_sort(checks.begin(), checks.end(), stands_before);
  return checks;
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
  const std::string message = fmt::format(
      "a batch norm was folded into this layer for inputs of rank {}; to run it on another rank, fold the original module with "
      "example inputs of that rank",
      check.rank);
  insert_raise_if(*graph, differs, message);
  ranks.prove(check.value, check.block, check.rank);
}

}  // namespace bnfold
