#include "apply.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

namespace bnfold {

namespace jit = torch::jit;

namespace {

jit::Value* insert(jit::Graph* graph, jit::NodeKind kind, at::ArrayRef<jit::Value*> inputs, const c10::TypePtr& type) {
  jit::Value* output = graph->insertNode(graph->create(kind, inputs))->output();
  return output->setType(type);
}

void make(const SetInput& edit, ParameterStore& store, Ranks&) {
  jit::Value* value = store.add(edit.beside, edit.name, edit.tensor);
  if (edit.transposed) {
    const jit::WithInsertPoint before(edit.node);
    value = insert(edit.node->owningGraph(), jit::aten::t, {value}, c10::TensorType::get());
  }
  edit.node->replaceInput(edit.input, value);
}

void make(const AddToOutput& edit, ParameterStore& store, Ranks&) {
  jit::Value* addend = store.add(edit.beside, edit.name, edit.tensor);
  jit::Graph* graph = edit.node->owningGraph();
  const jit::WithInsertPoint behind(edit.node->next());
  jit::Value* output = edit.node->output();
  jit::Value* sum = insert(graph, jit::aten::add, {output, addend, graph->insertConstant(1)}, c10::TensorType::get());
  output->replaceAllUsesAfterNodeWith(sum->node(), sum);
}

// if dim(value) != rank: raise
void make(const RequireRank& edit, ParameterStore&, Ranks& ranks) {
  jit::Graph* graph = edit.node->owningGraph();
  const jit::WithInsertPoint before(edit.node);
  jit::Value* dimensions = insert(graph, jit::aten::dim, {edit.value}, c10::IntType::get());
  jit::Value* differs = insert(graph, jit::aten::ne, {dimensions, graph->insertConstant(edit.rank)}, c10::BoolType::get());
  const std::string message = fmt::format(
      "a batch norm was folded into this layer for inputs of rank {}; to run it on another rank, fold the original module with "
      "example inputs of that rank",
      edit.rank);
  jit::Value* text = graph->insertConstant(message);
  jit::Value* exception = graph->insertConstant("builtins.RuntimeError");
  jit::Node* branch = graph->insertNode(graph->create(jit::prim::If, {differs}, 0));
  jit::Block* raising = branch->addBlock();
  branch->addBlock();
  raising->appendNode(graph->create(jit::prim::RaiseException, {text, exception}, 0));
  // Inside a branch or a loop the check says nothing about the nodes outside.
  if (edit.node->owningBlock() == graph->block()) ranks.prove(edit.value, edit.rank);
}

}  // namespace

void apply(const Plan& plan, ParameterStore& store, Ranks& ranks) {
  jit::Node* norm = plan.norm;
  for (const Edit& edit : plan.edits) {
    std::visit([&](const auto& one) { make(one, store, ranks); }, edit);
  }
  jit::Value* replacement = norm->namedInput("input");
  if (plan.needs_contiguous) {
    jit::Graph* graph = norm->owningGraph();
    const jit::WithInsertPoint before(norm);
    jit::Value* format = graph->insertConstant(static_cast<int64_t>(at::MemoryFormat::Contiguous));
    replacement = insert(graph, jit::aten::contiguous, {replacement, format}, c10::TensorType::get());
  }
  norm->output()->replaceAllUsesWith(replacement);
  norm->destroy();
}

}  // namespace bnfold
