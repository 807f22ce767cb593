#include "plan/apply.h"

#include <torch/csrc/jit/ir/constants.h>

#include "graph/graph_walk.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

jit::Value* insert(jit::Graph* graph, jit::NodeKind kind, at::ArrayRef<jit::Value*> inputs, const c10::TypePtr& type) {
  jit::Value* output = graph->insertNode(graph->create(kind, inputs))->output();
  return output->setType(type);
}

// Reads attributes before `condition` instead of in its branches: the new values stand beside those of the norm, and the store knows them.
void read_attributes_before(jit::Node* condition) {
  for (const jit::Block* branch : condition->blocks()) {
    std::vector<jit::Node*> reads;
    for_each_node(branch, [&reads](jit::Node* node) {
      if (node->kind() == jit::prim::GetAttr) reads.push_back(node);
    });
    for (jit::Node* read : reads) {
      if (!is_inside(read->input()->node()->owningBlock(), branch)) read->moveBefore(condition);
    }
  }
}

class Applier {
 public:
  Applier(const Norm& norm, ParameterStore& store, Ranks& ranks, std::unordered_set<const jit::Node*>& gone)
      : norm_(norm), store_(store), ranks_(ranks), gone_(gone) {}

  void operator()(const SetInput& edit) {
    jit::Value* value = store_.add(edit.beside, edit.name, edit.tensor);
    for (jit::Node* view : edit.views) {
      jit::Graph* graph = edit.node->owningGraph();
      jit::Node* copy = graph->createClone(view, [](jit::Value* input) { return input; });
      copy->replaceInput(0, value);
      value = copy->insertBefore(edit.node)->output();
      ranks_.adopt(value, view->output());
    }
    edit.node->replaceInput(edit.input, value);
  }

  void operator()(const SetNumber& edit) {
    const jit::WithInsertPoint before(edit.node);
    edit.node->replaceInput(edit.input, edit.node->owningGraph()->insertConstant(edit.number));
  }

  void operator()(const AddToOutput& edit) {
    jit::Value* addend = store_.add(edit.beside, edit.name, edit.tensor);
    jit::Graph* graph = edit.node->owningGraph();
    const jit::WithInsertPoint behind(edit.node->next());
    jit::Value* output = edit.node->output();
    jit::Value* sum = insert(graph, jit::aten::add, {output, addend, graph->insertConstant(1)}, c10::TensorType::get());
    sum->node()->copyMetadata(edit.node);
    output->replaceAllUsesAfterNodeWith(sum->node(), sum);
    ranks_.adopt(sum, output);
  }

  void operator()(const Bound& edit) {
    jit::Graph* graph = edit.node->owningGraph();
    const jit::WithInsertPoint before(edit.node);
    jit::Value* value = edit.node->input(0);
    const auto bound = [&](const at::Tensor& tensor, const char* name) {
      return store_.add_buffer(norm_.leaf, name, tensor.to(norm_.dtype, /*non_blocking=*/false, /*copy=*/true));
    };
    jit::Value* lower = edit.lower.defined() ? bound(edit.lower, "lower_bound") : nullptr;
    jit::Value* upper = edit.upper.defined() ? bound(edit.upper, "upper_bound") : nullptr;
    for (const auto& [kind, tensor] : {std::pair(jit::aten::maximum, lower), std::pair(jit::aten::minimum, upper)}) {
      if (tensor == nullptr) continue;
      value = insert(graph, kind, {value, tensor}, c10::TensorType::get());
      value->node()->copyMetadata(edit.node);
      ranks_.adopt(value, edit.node->output(0));
    }
    replace(edit.node, value);
  }

  void operator()(const Replace& edit) { replace(edit.node, edit.value); }

  void destroy(jit::Node* node) {
    forget(node);
    for (const jit::Block* block : node->blocks()) for_each_node(block, [this](const jit::Node* inner) { forget(inner); });
    node->destroy();
  }

 private:
  // A later value may get the address of one that is gone.
  void forget(const jit::Node* node) {
    gone_.insert(node);
    for (const jit::Value* output : node->outputs()) ranks_.forget(output);
  }

  void replace(jit::Node* node, jit::Value* value) {
    if (value->node()->sourceRange().source() == nullptr) value->node()->copyMetadata(node);
    ranks_.adopt(value, node->output(0));
    store_.memory().adopt(value, node->output(0));
    node->output(0)->replaceAllUsesWith(value);
    destroy(node);
  }

  const Norm& norm_;
  ParameterStore& store_;
  Ranks& ranks_;
  std::unordered_set<const jit::Node*>& gone_;
};

// clone keeps the order of what is not dense.
jit::Value* insert_layout(Layout layout, jit::Value* value, jit::Node* before) {
  jit::Graph* graph = before->owningGraph();
  const jit::WithInsertPoint here(before);
  const bool dense = layout == Layout::dense;
  jit::Value* format =
      graph->insertConstant(dense ? c10::IValue() : c10::IValue(static_cast<int64_t>(at::MemoryFormat::Contiguous)));
  jit::Value* copy = insert(graph, dense ? jit::aten::clone : jit::aten::contiguous, {value, format}, c10::TensorType::get());
  copy->node()->copyMetadata(before);
  return copy;
}

}  // namespace

void apply(const Plan& plan, const Norm& norm, ParameterStore& store, Ranks& ranks, std::unordered_set<const jit::Node*>& gone) {
  for (const RankCheck& check : plan.checks) insert(check, ranks);
  if (norm.reader != nullptr) read_attributes_before(norm.node());
  Applier applier(norm, store, ranks, gone);
  for (const Edit& edit : plan.edits) std::visit(applier, edit);
  jit::Value* replacement = norm.input();  // an edit may have put a sum in its place
  if (plan.layout != Layout::same) {
    replacement = insert_layout(plan.layout, replacement, norm.node());
    ranks.adopt(replacement, norm.input());
  }
  store.memory().adopt(replacement, norm.node()->output(0));
  norm.node()->output(0)->replaceAllUsesWith(replacement);
  for (auto node = norm.nodes.rbegin(); node != norm.nodes.rend(); ++node) applier.destroy(*node);
}

}  // namespace bnfold
