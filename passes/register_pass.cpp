// The pass of the graph executor that folds what is frozen as it runs.
#include <torch/csrc/jit/passes/pass_manager.h>
#include <torch/csrc/jit/passes/tensorexpr_fuser.h>

#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include "bnfold/pass.h"
#include "fold_graph.h"
#include "knowledge/find_norms.h"
#include "module/clean_up.h"
#include "module/plain_mode.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::mutex mutex;  // of what follows
std::optional<jit::GraphPassNameType> registered;

// The executor puts a node that observes sizes before each reader; they would stand between every layer and its norm. It takes them out
// itself right after this pass, and leaves the types behind only for the fuser.
void remove_observers(std::shared_ptr<jit::Graph>& graph) {
  jit::RemoveProfileNodesAndSpecializeTypes(graph);
  if (!jit::tensorExprFuserEnabled()) jit::RemoveTensorTypeSpecializations(graph);
}

// Whatever goes wrong here must not stop a module that runs without folding.
void fold_in_executor(std::shared_ptr<jit::Graph>& graph) try {
  if (find_norms(*graph).empty()) return;
  const PlainMode weights_outlive_the_call;
  auto folded = graph->copy();
  remove_observers(folded);
  ParameterStore constants(folded);
  Report report;
  FoldSettings settings;
  settings.stays_in_libtorch = true;
  if (!fold_graph(*folded, settings, constants, report)) return;
  clean_up(folded);
  graph = std::move(folded);
} catch (const std::exception& error) {
  TORCH_WARN("bnfold: a graph was left as it is: ", error.what());
}

}  // namespace

void register_pass() {
  const std::scoped_lock lock(mutex);
  if (!registered) registered = jit::registerPrePass(fold_in_executor);
}

void unregister_pass() {
  const std::scoped_lock lock(mutex);
  if (registered) jit::clearPrePass(*registered);
  registered.reset();
}

bool pass_is_registered() {
  const std::scoped_lock lock(mutex);
  return registered.has_value();
}

}  // namespace bnfold
