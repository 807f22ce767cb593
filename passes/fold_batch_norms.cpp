// The pipeline: what happens to a module, step by step.
#include "fold_batch_norms.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <set>

#include "bnfold/bnfold.h"
#include "fold_graph.h"
#include "graph/parameter_store.h"
#include "knowledge/find_norms.h"
#include "module/assemble.h"
#include "module/clean_up.h"
#include "module/flatten.h"
#include "module/measure.h"
#include "module/observe.h"
#include "module/plain_mode.h"
#include "report/listing.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

void require_eval_mode(const jit::Module& module) {
  if (module.hasattr("training") && module.is_training()) {
    throw Error("the module is in training mode; call .eval() on it before folding");
  }
}

void require_valid_ranks(const std::vector<std::optional<int64_t>>& ranks) {
  const int64_t most = 64;  // that PyTorch's operators take
  for (const auto& rank : ranks) {
    if (rank && (*rank < 0 || *rank > most))
      throw Error(fmt::format("input_ranks has {}, and a rank is from 0 to {}", *rank, most));
  }
}

std::vector<std::optional<int64_t>> ranks_of(const std::vector<c10::IValue>& inputs) {
  std::vector<std::optional<int64_t>> ranks;
  for (const c10::IValue& input : inputs) {
    ranks.emplace_back();
    if (input.isTensor()) ranks.back() = input.toTensor().dim();
  }
  return ranks;
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

// A check of the module that was decided may have been all that read a norm, which is dead then.
void drop_dead_norms(Report& report, const Program& program, const ParameterStore& store) {
  if (report.kept.empty()) return;
  std::set<std::string> left;
  for (const Program::Method& method : program.methods) {
    for (jit::Node* node : find_norms(*method.graph)) {
      if (const auto norm = read_norm(node, store)) left.insert(norm->name);
    }
  }
  const auto is_dead = [&left](const KeptNorm& norm) { return left.count(norm.name) == 0; };
  report.kept.erase(std::remove_if(report.kept.begin(), report.kept.end(), is_dead), report.kept.end());
}

std::vector<std::optional<int64_t>> told_ranks(const Options& options) {
  if (options.example_inputs.empty()) return options.input_ranks;
  if (!options.input_ranks.empty()) throw Error("give either example_inputs or input_ranks; example inputs have ranks");
  return ranks_of(options.example_inputs);
}

FoldResult folded(const jit::Module& module, const Options& options, bool stays_in_libtorch) {
  const PlainMode plain;
  require_eval_mode(module);
  const auto input_ranks = told_ranks(options);
  require_valid_ranks(input_ranks);
  Report report;

  Program program = flatten(module, options);
  report.before = measure(module, program.methods);
  ParameterStore store(program);
  for (const Program::Method& method : program.methods) {
    const bool is_forward = method.name == "forward";
    const bool given = is_forward && !input_ranks.empty();
    const FoldSettings settings{given ? input_ranks : traced_ranks(module, method.name), options.target, stays_in_libtorch,
                                options.fold_limit};
    const ObservedRanks observed(*method.graph, module, is_forward ? options.example_inputs : std::vector<c10::IValue>());
    fold_graph(*method.graph, settings, store, report);
  }
  list_each_norm_once(report);
  clean_up(program);
  drop_dead_norms(report, program, store);
  const jit::Module result = assemble(program, store);
  report.after = measure(result, program.methods);
  return {result, report};
}

}  // namespace

FoldResult fold(const jit::Module& module, const Options& options) {
  return folded(module, options, /*stays_in_libtorch=*/false);
}

FoldResult fold_before_freezing(const jit::Module& module, const Options& options) {
  return folded(module, options, /*stays_in_libtorch=*/true);
}

}  // namespace bnfold
