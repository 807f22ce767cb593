// The pipeline: what happens to a module that is optimized, step by step.
#include "bnfold/optimize.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/frozen_conv_add_relu_fusion.h>

#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "bnfold/bnfold.h"
#include "bnfold/check.h"
#include "freeze.h"
#include "fuse/concat.h"
#include "fuse/conv.h"
#include "fuse/facts.h"
#include "fuse/linear.h"
#include "fuse/memory_order.h"
#include "fuse/packed_weight.h"
#include "fuse/pixel.h"
#include "fuse/reuse_memory.h"
#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "graph/parameter_store.h"
#include "module/compilation_units.h"
#include "module/observe.h"
#include "module/plain_mode.h"
#include "module/trial_run.h"
#include "plan/bounds.h"
#include "plan/memory_reuse.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// `original` is the module that came in: it tells the arguments that the inputs leave out.
Observations observed_in(const jit::Module& frozen, const jit::Graph& graph, const std::vector<c10::IValue>& inputs,
                         const jit::Module& original) {
  if (inputs.empty()) return {};
  std::vector<c10::IValue> arguments = arguments_to_run(original, inputs);
  arguments.insert(arguments.begin(), copy_to_run(frozen)._ivalue());
  return run_or_throw([&] { return observe(graph, arguments); }, input_error);
}

// Fusions as the user is told of them.
template <typename Fusion>
FusedLayer described(const Fusion& fusion) {
  std::vector<std::string> steps;
  for (const jit::Node* node : fusion.nodes()) steps.emplace_back(node->kind().toUnqualString());
  return {fusion.layer, fmt::format("{}", fmt::join(steps, ", "))};
}

// Applies it, and knows of its result what was known. What is gone is forgotten: a later value may get its address.
template <typename Fusion>
jit::Value* applied(const Fusion& fusion, WeightPacker& packer, Facts& facts) {
  const jit::Value* last = fusion.last()->output();
  std::vector<const jit::Value*> inner;
  for (const jit::Node* node : fusion.nodes()) inner.push_back(node->output());
  jit::Value* step = apply(fusion, packer);
  facts.replace(last, step);
  for (const jit::Value* value : inner) facts.forget(value);
  return step;
}

void fuse_linears(OptimizeResult& result, const std::shared_ptr<jit::Graph>& graph, WeightPacker& packer, Facts& facts) {
  const LinearPlan plan = plan_linears(graph, facts);
  for (const LinearFusion& fusion : plan.fusions) {
    result.fused.push_back(described(fusion));
    applied(fusion, packer, facts);
  }
  result.unfused.insert(result.unfused.end(), plan.unfused.begin(), plan.unfused.end());
}

std::unordered_set<jit::Value*> fuse_convs(OptimizeResult& result, const std::shared_ptr<jit::Graph>& graph, WeightPacker& packer,
                                           Facts& facts) {
  ConvPlan plan = plan_convs(graph, facts);
  std::unordered_set<jit::Value*> steps;
  for (const ConvFusion& fusion : plan.fusions) {
    result.fused.push_back(described(fusion));
    facts.rely_on_sizes(fusion.last()->output(), fusion.last()->owningBlock());
    steps.insert(applied(fusion, packer, facts));
  }
  result.unfused.insert(result.unfused.end(), plan.unfused.begin(), plan.unfused.end());
  return steps;
}

void fuse_on_cpu(OptimizeResult& result, const std::shared_ptr<jit::Graph>& graph, Facts facts) {
  use_new_memory(*graph, facts);
  use_linear_for_pixels(graph, facts);
  const ParameterStore store(graph);
  const std::scoped_lock lock(compilation_units());
  WeightPacker packer(result.module, *graph);
  const std::unordered_set<jit::Value*> steps = fuse_convs(result, graph, packer, facts);
  fuse_linears(result, graph, packer, facts);
  const bool was_channels_last = store.holds_channels_last();
  std::unordered_set<jit::Value*> reordered;
  if (!was_channels_last) reordered = restore_memory_order(*graph, steps);
  Memory memory(*graph);
  join_bounds(*graph, store, memory, [&facts](const JoinedBounds& joined) {
    facts.replace(joined.upper, joined.clamp);
    facts.forget(joined.lower);
  });
  share_memory_of_concatenations(*graph, facts, memory, [was_channels_last, &reordered](jit::Value* value) {
    return was_channels_last || reordered.count(value) != 0;
  });
  reuse_memory(*graph, facts);
  facts.insert_checks();
}

bool is_on_cuda(const jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&found](const jit::Node* node) {
    const auto constant = node->kind() == jit::prim::Constant ? constant_tensor(node->output()) : std::nullopt;
    found |= constant && constant->is_cuda();
  });
  return found;
}

// LibTorch's fusion for cuDNN drops writes into views.
bool writes_in_place(const jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&found](const jit::Node* node) {
    for (const jit::Value* input : node->inputs()) found |= writes_into(node, input);
  });
  return found;
}

// By libbnfold_onednn, which is a library of its own.
void move_into_networks(OptimizeResult& result, const std::string& method) {
  const auto moves = c10::Dispatcher::singleton().findSchema({"bnfold::move_into_onednn", ""});
  if (!moves)
    throw Error("the runtime onednn needs the library libbnfold_onednn, which is not loaded: link bnfold::onednn, or load it");
  jit::Stack stack = {result.module._ivalue(), method};
  moves->callBoxed(stack);
  for (const c10::IValue& layer : stack.front().toListRef()) result.in_networks.push_back(layer.toStringRef());
}

// `inputs` are those of the method, where there are any.
void fuse(OptimizeResult& result, const std::string& method, const std::vector<c10::IValue>& inputs, const jit::Module& original,
          Runtime runtime) {
  auto graph = result.module.get_method(method).graph();
  if (is_on_cuda(*graph)) {
    if (!writes_in_place(*graph)) jit::FuseFrozenConvAddRelu(graph);
  } else if (can_pack_weights()) {
    use_new_memory(*graph, ParameterStore(graph));
    if (runtime == Runtime::onednn) move_into_networks(result, method);
    fuse_on_cpu(result, graph, Facts(*graph, observed_in(result.module, *graph, inputs, original)));
  }
  jit::EliminateDeadCode(graph);
}

void require_equal(const jit::Module& module, const jit::Module& optimized, const std::vector<c10::IValue>& inputs) {
  const CheckResult result = check(module, optimized, {inputs});
  if (result.passed) return;
  throw Error(fmt::format(
      "the optimized module differs from the original on the example inputs: by {:.1e} of the largest value of {}, where "
      "{:.0e} is the tolerance; without example inputs nothing is compared",
      result.largest_error, result.worst_output, result.tolerance));
}

constexpr std::array<std::string_view, 9> kObstacles = {
    "layer_unsupported",       "weight_not_static",   "weight_unsupported", "input_not_batched", "value_changed_in_place",
    "value_has_other_readers", "operand_unsupported", "sizes_unknown",      "product_too_small"};

}  // namespace

std::string_view name(FusionObstacle obstacle) {
  return kObstacles.at(static_cast<size_t>(obstacle));
}

std::string OptimizeResult::to_json() const {
  auto json = nlohmann::ordered_json::parse(report.to_json());
  json["fused"] = nlohmann::ordered_json::array();
  for (const FusedLayer& layer : fused) json["fused"].push_back({{"name", layer.name}, {"steps", layer.steps}});
  json["in_networks"] = in_networks;
  json["unfused"] = nlohmann::ordered_json::array();
  for (const UnfusedStep& step : unfused) {
    json["unfused"].push_back(
        {{"name", step.name}, {"step", step.step}, {"obstacle", bnfold::name(step.obstacle)}, {"detail", step.detail}});
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

OptimizeResult optimize_for_inference(const jit::Module& module, const std::vector<c10::IValue>& example_inputs,
                                      const std::vector<std::string>& preserved_attrs, Runtime runtime) {
  const PlainMode plain;
  Options options;
  options.example_inputs = example_inputs;
  const FoldResult frozen = freeze(module, std::move(options), preserved_attrs, /*optimize_numerics=*/true);
  OptimizeResult result{frozen.module, frozen.report, {}, {}, {}};
  fuse(result, "forward", example_inputs, module, runtime);
  for (const std::string& name : preserved_attrs) {
    if (name != "forward" && result.module.find_method(name)) fuse(result, name, {}, module, runtime);
  }
  if (!example_inputs.empty()) require_equal(module, result.module, example_inputs);
  return result;
}

}  // namespace bnfold
