#include "fuse/observe.h"

#include <torch/csrc/jit/runtime/interpreter.h>

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
    if (node->kind().is_aten()) collect(node->outputs());
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

}  // namespace

Observations observe(const jit::Graph& graph, const std::vector<c10::IValue>& inputs) {
  const std::shared_ptr<jit::Graph> copy = const_cast<jit::Graph&>(graph).copy();
  const std::vector<jit::Value*> values = outer_tensors(graph);
  return_sizes(*copy, outer_tensors(*copy));
  jit::Stack stack = inputs;
  jit::InterpreterState(jit::Code(copy, "observe")).run(stack);
  Observations observed;
  size_t place = stack.size() - values.size();
  for (const jit::Value* value : values) observed.emplace(value, stack.at(place++).toIntVector());
  return observed;
}

}  // namespace bnfold
