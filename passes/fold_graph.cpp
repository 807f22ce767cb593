#include "fold_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "graph/graph_walk.h"
#include "graph/operators.h"
#include "knowledge/find_norms.h"
#include "knowledge/ranks.h"
#include "plan/apply.h"
#include "plan/bounds.h"
#include "plan/decided_branches.h"
#include "plan/leftover_checks.h"
#include "plan/memory_reuse.h"
#include "plan/parallel_convs.h"
#include "plan/plan.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// "file.py:12" of a node, empty where the module does not tell.
std::string source_of(const jit::Node* node) {
  // A module that was loaded from a file knows the code that was written into it, and from that the code it was made of.
  const jit::SourceRange& written = node->sourceRange();
  const auto generating = written.findSourceRangeThatGenerated();
  const auto place = (generating ? *generating : written).file_line_col();
  if (!place) return "";
  const auto& [file, line, column] = *place;
  const size_t slash = file.rfind('/');
  return fmt::format("{}:{}", slash == std::string::npos ? file : file.substr(slash + 1), line);
}

KeptNorm kept(const Norm& norm, const Refusal& refusal) {
  const Decline& main = refusal.main();
  KeptNorm kept{norm.name, main.reason, main.detail, source_of(main.node), {}};
  for (const Attempt& attempt : refusal.attempts) {
    Obstacle obstacle{attempt.way, {}, attempt.decline.reason, attempt.decline.detail, source_of(attempt.decline.node)};
    for (const jit::Node* node : attempt.passed) obstacle.passed.emplace_back(node->kind().toUnqualString());
    kept.obstacles.push_back(std::move(obstacle));
  }
  return kept;
}

// Whether nobody reads it but who called the module, alone or in a tuple, list or dict.
bool is_only_returned(const jit::Value* value) {
  return std::all_of(value->uses().begin(), value->uses().end(), [](const jit::Use& use) {
    if (is_output(use)) return true;
    const jit::Node* user = use.user;
    const bool contains = user->kind() == jit::prim::TupleConstruct || user->kind() == jit::prim::ListConstruct ||
                          user->kind() == jit::prim::DictConstruct;
    return contains && is_only_returned(user->output());
  });
}

// An affine with constants that brings an output into the range that is wanted there.
bool scales_an_output(const Norm& norm) {
  return !is_normalizing(norm.node()) && norm.reader == nullptr && is_only_returned(norm.node()->output(0));
}

// An instance norm without running statistics is of the kind of a layer norm.
bool is_no_batch_norm(const Norm& norm) {
  const auto* decline = std::get_if<Decline>(&norm.content);
  return norm.node()->kind() == jit::aten::instance_norm && decline != nullptr &&
         decline->reason == Reason::norm_without_running_statistics;
}

// Where every part of a value has the same norm behind it, all of them go in one fold.
std::vector<Norm> norms_that_go_along(const Plan& plan, const ParameterStore& store) {
  std::vector<Norm> norms;
  for (const Edit& edit : plan.edits) {
    const auto* replaced = std::get_if<Replace>(&edit);
    if (replaced != nullptr && is_normalizing(replaced->node)) norms.push_back(*read_norm(replaced->node, store));
  }
  return norms;
}

class NormFolder {
 public:
  NormFolder(jit::Graph& graph, const FoldSettings& settings, ParameterStore& store, Ranks& ranks, Report& report)
      : graph_(graph), settings_(settings), store_(store), ranks_(ranks), report_(report) {}

  // Until nothing moves any more: a norm that is gone may have stood in the way of another one. Returns whether the graph changed.
  bool fold_all() {
    bool changed = false;
    while (fold_each()) changed = true;
    return changed;
  }

  // Those that the last round left.
  const std::vector<KeptNorm>& kept_norms() const { return kept_; }

  bool is_at_limit() const {
    return settings_.fold_limit && static_cast<int64_t>(report_.folded.size() + report_.scales.size()) >= *settings_.fold_limit;
  }

 private:
  bool fold_each() {
    if (is_at_limit()) return false;
    kept_.clear();
    gone_.clear();
    readers_.reset();
    bool moved = false;
    for (jit::Node* node : find_whole_norms(graph_, store_)) {
      if (is_at_limit()) break;
      if (gone_.count(node) == 0) moved |= fold(node);
    }
    return moved;
  }

  bool fold(jit::Node* node) {
    const auto norm = read_norm(node, store_);
    if (!norm) return false;
    const auto decision = plan(*norm, store_, ranks_, settings_.target);
    if (const auto* refusal = std::get_if<Refusal>(&decision)) {
      const bool counts = norm->kind == Norm::batch_norm && !scales_an_output(*norm) && !is_no_batch_norm(*norm);
      if (counts) kept_.push_back(kept(*norm, *refusal));
      return false;
    }
    const Plan& found = std::get<Plan>(decision);
    if (norm->kind == Norm::scale && !pays(found)) return false;
    list(*norm, found);
    apply(found, *norm, store_, ranks_, gone_);
    return true;
  }

  // A scale alone goes where that costs nothing. A layer that has several readers, as a head of all levels, would be copied for one of them.
  bool pays(const Plan& fold_of_scale) {
    if (fold_of_scale.cost(traits_of(settings_.target).costs) > 0) return false;
    if (!readers_) count_readers();
    return std::none_of(fold_of_scale.edits.begin(), fold_of_scale.edits.end(), [this](const Edit& edit) {
      const auto* set = std::get_if<SetInput>(&edit);
      const auto tensor = set != nullptr ? store_.read(set->node->input(set->input)) : std::nullopt;
      return tensor && tensor->defined() && (*readers_)[storage_of(*tensor)] > 1;
    });
  }

  void count_readers() {
    readers_.emplace();
    for_each_node(graph_.block(), [this](const jit::Node* node) {
      for (const jit::Value* input : node->inputs()) {
        const auto tensor = is_tensor(input) ? store_.read(input) : std::nullopt;
        if (tensor && tensor->defined()) ++(*readers_)[storage_of(*tensor)];
      }
    });
  }

  void list(const Norm& norm, const Plan& fold) {
    (norm.kind == Norm::scale ? report_.scales : report_.folded).push_back({norm.name, fold.direction, fold.into});
    for (const Norm& other : norms_that_go_along(fold, store_)) {
      report_.folded.push_back({other.name, fold.direction, fold.into});
    }
  }

  jit::Graph& graph_;
  const FoldSettings& settings_;
  ParameterStore& store_;
  Ranks& ranks_;
  Report& report_;
  std::vector<KeptNorm> kept_;                                   // in the last round
  std::unordered_set<const jit::Node*> gone_;                    // in this round
  std::optional<std::unordered_map<const void*, int>> readers_;  // of the memory of each static tensor, in this round
};

std::optional<int64_t> rank_of_static(const jit::Value* value, const ParameterStore& store) {
  const auto operand = static_operand(store, const_cast<jit::Value*>(value));
  return operand && operand->tensor.defined() ? std::optional<int64_t>(operand->tensor.dim()) : std::nullopt;
}

Ranks::StaticRank static_ranks_of(const ParameterStore& store) {
  return [&store](const jit::Value* value) { return rank_of_static(value, store); };
}

Ranks ranks_in(const jit::Graph& graph, const FoldSettings& settings, const ParameterStore& store, bool checks_prove = true) {
  return {graph, settings.input_ranks, static_ranks_of(store), checks_prove, settings.types_prove_ranks};
}

bool takes_branches(jit::Graph& graph, const FoldSettings& settings, ParameterStore& store) {
  if (!has_rank_condition(graph) || find_norms(graph).empty()) return false;
  store.read_memory(graph);
  return take_decided_branches(graph, ranks_in(graph, settings, store), static_ranks_of(store));
}

// Returns whether the graph changed, and whether the limit was reached.
std::pair<bool, bool> fold_norms(jit::Graph& graph, const FoldSettings& settings, ParameterStore& store, Report& report) {
  bool changed = false;
  while (true) {
    store.read_memory(graph);
    Ranks ranks = ranks_in(graph, settings, store);
    NormFolder folder(graph, settings, store, ranks, report);
    changed |= folder.fold_all();
    // The check of a fold may prove the rank that another condition asks for.
    if (!folder.is_at_limit() && takes_branches(graph, settings, store)) continue;
    report.kept.insert(report.kept.end(), folder.kept_norms().begin(), folder.kept_norms().end());
    return {changed, folder.is_at_limit()};
  }
}

void join_bounds_where_faster(jit::Graph& graph, const ParameterStore& store) {
  if (!store.holds_channels_last() && !store.is_on_gpu()) return;
  Memory memory(graph);
  join_bounds(graph, store, memory);
}

}  // namespace

bool fold_graph(jit::Graph& graph, const FoldSettings& settings, ParameterStore& store, Report& report) {
  const TargetTraits& target = traits_of(settings.target);
  takes_branches(graph, settings, store);
  const ValueNumbers overwrote = use_new_memory(graph, store);
  auto [changed, is_at_limit] = fold_norms(graph, settings, store, report);
  if (!is_at_limit && !target.only_backward) changed |= merge_parallel_convs(graph, store, report);
  if (!is_at_limit && contains(graph, jit::prim::RaiseException)) {
    Ranks unchecked = ranks_in(graph, settings, store, /*checks_prove=*/false);
    remove_leftover_checks(graph, store, unchecked, target.runs_checks);
  }
  if (settings.stays_in_libtorch) join_bounds_where_faster(graph, store);
  reuse_memory(graph, store, overwrote, settings.stays_in_libtorch);
  return changed;
}

}  // namespace bnfold
