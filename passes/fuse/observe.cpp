#include "fuse/observe.h"

#include <torch/csrc/jit/runtime/interpreter.h>

#include <algorithm>

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

// What the graph returns last: sizes and dtype of each of the values.
void return_metadata(jit::Graph& graph, const std::vector<jit::Value*>& values) {
  for (jit::Value* value : values) {
    const bool input = value->node()->kind() == jit::prim::Param;
    const jit::WithInsertPoint behind(input ? *graph.nodes().begin() : value->node()->next());
    jit::Value* sizes = graph.insertNode(graph.create(jit::aten::size, {value}))->output();
    jit::Value* dtype = graph.insertNode(graph.create(jit::prim::dtype, {value}))->output();
    graph.registerOutput(sizes->setType(c10::ListType::ofInts()));
    graph.registerOutput(dtype->setType(c10::IntType::get()));
  }
}

}  // namespace

Observations observe(const jit::Graph& graph, const std::vector<c10::IValue>& inputs) {
  const std::shared_ptr<jit::Graph> copy = const_cast<jit::Graph&>(graph).copy();
  const std::vector<jit::Value*> values = outer_tensors(graph);
  return_metadata(*copy, outer_tensors(*copy));
  jit::Stack stack = inputs;
  jit::InterpreterState(jit::Code(copy, "observe")).run(stack);
  Observations observed;
  size_t place = stack.size() - 2 * values.size();
  for (const jit::Value* value : values) {
    observed.emplace(value, Observed{stack.at(place).toIntVector(), static_cast<at::ScalarType>(stack.at(place + 1).toInt())});
    place += 2;
  }
  return observed;
}

bool surely_have_one_size(const Observations& observed, const jit::Value* one, const jit::Value* other) {
  const auto a = observed.find(one);
  const auto b = observed.find(other);
  if (a == observed.end() || b == observed.end()) return false;
  if (a->second.sizes != b->second.sizes || a->second.dtype != b->second.dtype || a->second.sizes.size() < 2) return false;
  return std::all_of(a->second.sizes.begin() + 2, a->second.sizes.end(), [](int64_t size) { return size > 1; });
}

}  // namespace bnfold
