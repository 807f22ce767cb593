#include "fold_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "knowledge/find_norms.h"
#include "knowledge/ranks.h"
#include "plan/apply.h"
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

// An affine with constants that nobody reads but who called the module: it brings an output into the range that is wanted there.
bool scales_an_output(const Norm& norm) {
  if (is_normalizing(norm.node()) || norm.reader != nullptr) return false;
  const auto& uses = norm.node()->output(0)->uses();
  return std::all_of(uses.begin(), uses.end(), [](const jit::Use& use) {
    return use.user->kind() == jit::prim::Return && use.user->owningBlock() == use.user->owningGraph()->block();
  });
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

// A condition that is folded takes away what stands in its branches.
void insert_nodes_inside(const Norm& norm, const std::vector<jit::Node*>& nodes, std::unordered_set<const jit::Node*>& gone) {
  std::copy_if(nodes.begin(), nodes.end(), std::inserter(gone, gone.end()),
               [&](const jit::Node* node) { return norm.is_made_by(node); });
}

}  // namespace

// Until nothing moves any more: a norm that is gone may have stood in the way of another one.
bool fold_graph(jit::Graph& graph, const std::vector<std::optional<int64_t>>& input_ranks, ParameterStore& store, Report& report,
                std::optional<int64_t> fold_limit) {
  const auto is_at_limit = [&] {
    return fold_limit && static_cast<int64_t>(report.folded.size() + report.scales.size()) >= *fold_limit;
  };
  const auto static_rank = [&store](const jit::Value* value) {
    const auto operand = static_operand(store, const_cast<jit::Value*>(value));
    return operand && operand->tensor.defined() ? std::optional<int64_t>(operand->tensor.dim()) : std::nullopt;
  };
  const ValueNumbers overwrote = use_new_memory(graph, store);
  store.read_memory(graph);
  Ranks ranks(graph, input_ranks, static_rank);
  std::vector<KeptNorm> left;
  bool changed = false;
  for (bool moved = true; moved && !is_at_limit();) {
    moved = false;
    left.clear();
    std::unordered_set<const jit::Node*> gone;
    const std::vector<jit::Node*> nodes = find_whole_norms(graph, store);
    for (jit::Node* node : nodes) {
      if (is_at_limit()) break;
      if (gone.count(node) != 0) continue;
      const auto norm = read_norm(node, store);
      if (!norm) continue;
      const auto decision = plan(*norm, store, ranks);
      if (const auto* refusal = std::get_if<Refusal>(&decision)) {
        if (norm->kind == Norm::batch_norm && !scales_an_output(*norm)) left.push_back(kept(*norm, *refusal));
        continue;
      }
      const Plan& fold = std::get<Plan>(decision);
      const std::vector<Norm> others = norms_that_go_along(fold, store);
      if (norm->kind == Norm::scale && fold.added_nodes() > 0) continue;
      (norm->kind == Norm::scale ? report.scales : report.folded).push_back({norm->name, fold.direction, fold.into});
      for (const Norm& other : others) {
        report.folded.push_back({other.name, fold.direction, fold.into});
        gone.insert(other.node());
      }
      if (norm->reader != nullptr) insert_nodes_inside(*norm, nodes, gone);
      apply(fold, *norm, store, ranks);
      moved = changed = true;
    }
  }
  if (!is_at_limit()) changed |= merge_parallel_convs(graph, store, report);
  reuse_memory(graph, store, overwrote);
  report.kept.insert(report.kept.end(), left.begin(), left.end());
  return changed;
}

}  // namespace bnfold
