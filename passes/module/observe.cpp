#include "module/observe.h"

#include <torch/csrc/jit/runtime/interpreter.h>

#include <exception>

#include "graph/graph_walk.h"
#include "module/trial_run.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The tensors that come in, and those that the outermost operators make: what a branch gives may be nothing where the other one raises.
std::vector<jit::Value*> outer_tensors(const jit::Graph& graph) {
  std::vector<jit::Value*> tensors;
  const auto collect = [&tensors](at::ArrayRef<const jit::Value*> values) {
    for (const jit::Value* value : values) {
      if (value->type()->kind() == c10::TypeKind::TensorType) tensors.push_back(const_cast<jit::Value*>(value));
    }
  };
  collect(graph.inputs());
  for (const jit::Node* node : graph.nodes()) {
    if (node->kind().is_aten() || node->kind() == jit::prim::ListUnpack) collect(node->outputs());
  }
  return tensors;
}

// What the graph returns last: the sizes of each of the values.
void return_sizes(jit::Graph& graph, const std::vector<jit::Value*>& values) {
  for (jit::Value* value : values) {
    const bool input = value->node()->kind() == jit::prim::Param;
    const jit::WithInsertPoint behind(input ? *graph.nodes().begin() : value->node()->next());
    jit::Value* sizes = graph.insertNode(graph.create(jit::aten::size, {value}))->output();
    graph.registerOutput(sizes->setType(c10::ListType::ofInts()));
  }
}

// A trace knows the dtype beside the rank.
void forget_rank(jit::Value* value) {
  const auto type = value->type()->cast<c10::TensorType>();
  if (type && type->dim() && !type->scalarType()) value->setType(c10::TensorType::get());
}

}  // namespace

ObservedRanks::ObservedRanks(jit::Graph& graph, const jit::Module& module, const std::vector<c10::IValue>& inputs)
    : graph_(graph) {
  if (inputs.empty()) return;
  const RandomState random;
  const jit::Module copy = copy_to_run(module);
  try {
    std::vector<c10::IValue> arguments = arguments_to_run(copy, inputs);
    arguments.insert(arguments.begin(), copy._ivalue());
    for (const auto& [value, sizes] : observe(graph, arguments)) {
      const auto type = value->type()->expect<c10::TensorType>();
      if (!type->dim()) const_cast<jit::Value*>(value)->setType(type->withDim(sizes.size()));
    }
  } catch (const std::exception&) {
    run_or_throw([&] { return run_forward(copy, inputs); }, input_error);
  }
}

ObservedRanks::~ObservedRanks() {
  for (jit::Value* input : graph_.inputs()) forget_rank(input);
  for_each_node(graph_.block(), [](jit::Node* node) {
    for (jit::Value* output : node->outputs()) forget_rank(output);
  });
}

Observations observe(const jit::Graph& graph, const std::vector<c10::IValue>& inputs) {
  const std::shared_ptr<jit::Graph> copy = const_cast<jit::Graph&>(graph).copy();
  const std::vector<jit::Value*> values = outer_tensors(graph);
  return_sizes(*copy, outer_tensors(*copy));
  jit::Stack stack = inputs;
  jit::InterpreterState(jit::Code(copy, "observe"), launch_here).run(stack);
  Observations observed;
  size_t place = stack.size() - values.size();
  for (const jit::Value* value : values) observed.emplace(value, stack.at(place++).toIntVector());
  return observed;
}

}  // namespace bnfold
