// The pipeline: what happens to a module, step by step.
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <set>

#include "apply.h"
#include "assemble.h"
#include "bnfold/bnfold.h"
#include "clean_up.h"
#include "find_norms.h"
#include "flatten.h"
#include "measure.h"
#include "parameter_store.h"
#include "plan.h"
#include "ranks.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

void require_eval_mode(const jit::Module& module) {
  if (module.hasattr("training") && module.is_training()) {
    throw Error("the module is in training mode; call .eval() on it before folding");
  }
}

// The ranks that a trace recorded for the inputs of a method; nothing where it was scripted or loaded from a file.
std::vector<std::optional<int64_t>> traced_ranks(const jit::Module& module, const std::string& method) {
  std::vector<std::optional<int64_t>> ranks;
  for (const jit::Value* input : module.get_method(method).graph()->inputs().slice(1)) {
    const auto tensor = input->type()->cast<c10::TensorType>();
    ranks.emplace_back();
    if (tensor && tensor->sizes().size()) ranks.back() = static_cast<int64_t>(*tensor->sizes().size());
  }
  return ranks;
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

// Folds what can be folded, until nothing moves any more: a norm that is gone may have stood in the way of another one.
void fold_method(const Program::Method& method, const std::vector<std::optional<int64_t>>& input_ranks, ParameterStore& store,
                 Report& report) {
  const auto static_rank = [&store](const jit::Value* value) {
    const auto operand = static_operand(store, const_cast<jit::Value*>(value));
    return operand && operand->tensor.defined() ? std::optional<int64_t>(operand->tensor.dim()) : std::nullopt;
  };
  Ranks ranks(*method.graph, input_ranks, static_rank);
  std::vector<KeptNorm> left;
  for (bool moved = true; moved;) {
    moved = false;
    left.clear();
    for (jit::Node* node : find_norms(*method.graph)) {
      const auto norm = read_norm(node, store);
      if (!norm) continue;
      const auto decision = plan(*norm, store, ranks);
      if (const auto* refusal = std::get_if<Refusal>(&decision)) {
        if (norm->kind == Norm::batch_norm) left.push_back(kept(*norm, *refusal));
        continue;
      }
      const Plan& fold = std::get<Plan>(decision);
      if (norm->kind == Norm::scale && fold.added_nodes() > 0) continue;
      (norm->kind == Norm::scale ? report.scales : report.folded).push_back({norm->name, fold.direction, fold.into});
      apply(fold, *norm, store, ranks);
      moved = true;
    }
  }
  report.kept.insert(report.kept.end(), left.begin(), left.end());
}

// A norm that is called twice is one norm: kept where one of its calls is, and else listed once for each layer that took it.
void list_each_norm_once(Report& report) {
  std::set<std::string> kept;
  std::set<std::pair<std::string, std::string>> listed;
  for (const KeptNorm& norm : report.kept) kept.insert(norm.name);
  const auto repeats = [&](const FoldedNorm& norm) {
    return kept.count(norm.name) != 0 || !listed.emplace(norm.name, norm.into).second;
  };
  report.folded.erase(std::remove_if(report.folded.begin(), report.folded.end(), repeats), report.folded.end());
}

}  // namespace

FoldResult fold(const jit::Module& module, const Options& options) {
  const at::NoGradGuard no_grad;
  require_eval_mode(module);
  Report report;

  Program program = flatten(module, options);
  report.before = measure(module, program.methods);
  ParameterStore store(program);
  for (const Program::Method& method : program.methods) {
    const bool given = method.name == "forward" && !options.input_ranks.empty();
    fold_method(method, given ? options.input_ranks : traced_ranks(module, method.name), store, report);
  }
  list_each_norm_once(report);
  clean_up(program);
  jit::Module folded = assemble(program, store);
  report.after = measure(folded, program.methods);
  return {folded, report};
}

}  // namespace bnfold
