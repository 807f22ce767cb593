#include "plan/leftover_checks.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/list_maker.h"
#include "graph/operators.h"
#include "graph/raise_if.h"
#include "graph/take_branch.h"
#include "knowledge/asked_ranks.h"
#include "knowledge/deciding_rank.h"
#include "knowledge/extents.h"
#include "knowledge/find_norms.h"
#include "plan/checks.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// What a condition comes to in the runs that reach a block, by the ranks and sizes of values.
class Decision {
 public:
  // `supposed` is a rank that values have in the place of those that an example told.
  Decision(const ParameterStore& store, const Ranks& ranks, const jit::Node* condition,
           std::optional<int64_t> supposed = std::nullopt)
      : store_(store), ranks_(ranks), block_(condition->owningBlock()), supposed_(supposed) {
    outcome_ = truth(condition->input());
  }

  // Nothing where what it asks for is not known.
  std::optional<bool> outcome() const { return outcome_; }

  // The values whose ranks an example told.
  const std::vector<const jit::Value*>& hinted() const { return hinted_; }

 private:
  std::optional<bool> truth(const jit::Value* value) {
    if (const auto constant = constant_bool(value)) return constant;
    const jit::Node* node = value->node();
    if (node->kind() == jit::aten::__not__) {
      const auto negated = truth(node->input());
      return negated ? std::optional<bool>(!*negated) : std::nullopt;
    }
    if (node->kind() == jit::prim::If) {
      const auto first = truth(node->input());
      return first ? truth(node->blocks().at(*first ? 0 : 1)->outputs().at(value->offset())) : std::nullopt;
    }
    return compared(node);
  }

  std::optional<bool> compared(const jit::Node* node) {
    if (!is_one_of(node, {"eq", "ne", "lt", "le", "gt", "ge"})) return std::nullopt;
    const auto one = number(node->input(0));
    const auto other = one ? number(node->input(1)) : std::nullopt;
    if (!other) return std::nullopt;
    const std::string name = node->kind().toUnqualString();
    if (name == "eq" || name == "ne") return (*one == *other) == (name == "eq");
    if (*one == *other) return name == "le" || name == "ge";
    return (*one < *other) == (name == "lt" || name == "le");
  }

  // A constant, a rank or a size.
  std::optional<int64_t> number(const jit::Value* value) {
    if (const auto constant = constant_int(value)) return constant;
    if (const auto read = size_read(value)) return size(*read);
    const jit::Node* node = value->node();
    if (node->kind() == jit::aten::dim) return rank(node->input());
    const jit::Value* sized = node->kind() == jit::aten::len ? tensor_of_sizes(node->input()) : nullptr;
    return sized == nullptr ? std::nullopt : rank(sized);
  }

  std::optional<int64_t> rank(const jit::Value* tensor) {
    const auto rank = ranks_.of(tensor, block_);
    if (!rank || rank->strength == Strength::assumed) return std::nullopt;
    if (rank->strength != Strength::hinted) return rank->number;
    hinted_.push_back(tensor);
    return supposed_.value_or(rank->number);
  }

  // What the weights of layers tell, where the ranks are known that they rest on.
  std::optional<int64_t> size(const ReadSize& read) {
    const AskedRanks ranks(ranks_, block_);
    const auto dimension = from_front(read.dimension, ranks.of(read.tensor));
    const auto size = dimension ? Extents(store_, ranks).of(read.tensor, *dimension) : std::nullopt;
    const bool told = std::all_of(ranks.needs().begin(), ranks.needs().end(),
                                  [this](const AskedRanks::Need& need) { return rank(need.value) == need.rank; });
    return told ? size : std::nullopt;
  }

  const ParameterStore& store_;
  const Ranks& ranks_;
  const jit::Block* block_;
  const std::optional<int64_t> supposed_;
  std::optional<bool> outcome_;
  std::vector<const jit::Value*> hinted_;
};

std::vector<jit::Node*> nodes_of(jit::Block* block) {
  return {block->nodes().begin(), block->nodes().end()};
}

class LeftoverChecks {
 public:
  LeftoverChecks(jit::Graph& graph, const ParameterStore& store, Ranks& ranks, bool runs_checks)
      : graph_(graph), store_(store), ranks_(ranks), runs_checks_(runs_checks), keeps_norms_(any_node(graph, is_normalizing)) {}

  void remove(const std::vector<jit::Node*>& nodes) const {
    for (jit::Node* node : nodes) {
      if (node->kind() == jit::prim::If && raises(node->blocks().at(0)) != raises(node->blocks().at(1))) {
        remove_check(node);
      } else {
        for (jit::Block* block : node->blocks()) remove(nodes_of(block));
      }
    }
  }

 private:
  void remove_check(jit::Node* check) const {
    const size_t passing = raises(check->blocks().at(0)) ? 1 : 0;
    jit::Block* passed = check->blocks().at(passing);
    const std::vector<jit::Node*> inner = nodes_of(passed);
    const Decision decision(store_, ranks_, check);
    const bool passes = decision.outcome() == (passing == 0) && !lets_others_pass(check, decision, passing == 0);
    const auto instead = passes ? checks_instead(check, decision.hinted()) : std::nullopt;
    if (instead) {
      for (const RankCheck& of_input : *instead) insert(of_input, ranks_);
      take_branch(check, passed);
    } else if (const auto deciding = deciding_rank(check); deciding && deciding->takes_first == (passing == 0)) {
      ranks_.prove(deciding->value, check->owningBlock(), deciding->rank);
    }
    remove(inner);
  }

  // Whether a value may have another rank than in the example too, as the input of a BatchNorm1d: a check of the input would refuse it. A norm
  // that is left is there for the rank of the example, which another fold must know.
  bool lets_others_pass(const jit::Node* check, const Decision& decision, bool passing) const {
    if (!runs_checks_ || keeps_norms_ || decision.hinted().empty()) return false;
    const int64_t own = ranks_.of(decision.hinted().front(), check->owningBlock())->number;
    for (const int64_t other : {1, 2, 3, 4, 5}) {
      if (other != own && Decision(store_, ranks_, check, other).outcome() == passing) return true;
    }
    return false;
  }

  // The checks of the graph's inputs that make this one needless, where an example told the ranks of `hinted`; nothing where there are none such.
  std::optional<std::vector<RankCheck>> checks_instead(const jit::Node* check,
                                                       const std::vector<const jit::Value*>& hinted) const {
    std::vector<RankCheck> checks;
    if (!runs_checks_) return checks;
    for (const jit::Value* value : hinted) {
      const auto [input, difference] = ranks_.witness(value, graph_.block());
      const bool follows = check->owningBlock() == graph_.block() && input->node() == graph_.param_node() && input != value;
      if (!follows) return std::nullopt;
      const int64_t rank = ranks_.of(value, graph_.block())->number - difference;
      checks.push_back({input, graph_.block(), rank, "this module was folded for inputs"});
    }
    return checks;
  }

  jit::Graph& graph_;
  const ParameterStore& store_;
  Ranks& ranks_;
  const bool runs_checks_;
  const bool keeps_norms_;
};

}  // namespace

void remove_leftover_checks(jit::Graph& graph, const ParameterStore& store, Ranks& ranks, bool runs_checks) {
  if (!ranks.change_in_place()) LeftoverChecks(graph, store, ranks, runs_checks).remove(nodes_of(graph.block()));
}

}  // namespace bnfold
