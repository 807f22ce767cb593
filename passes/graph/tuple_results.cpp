#include "graph/tuple_results.h"

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool can_be_split(const jit::Node* condition, size_t place) {
  if (condition->output(place)->type()->kind() != c10::TypeKind::TupleType) return false;
  const auto branches = condition->blocks();
  return std::all_of(branches.begin(), branches.end(), [place](const jit::Block* branch) {
    const jit::NodeKind kind = branch->outputs().at(place)->node()->kind();
    return kind == jit::prim::TupleConstruct || kind == jit::prim::Uninitialized;
  });
}

// The elements of the tuple that `branch` makes, of these types.
std::vector<jit::Value*> elements_of(jit::Block* branch, size_t place, c10::ArrayRef<c10::TypePtr> types) {
  jit::Node* node = branch->outputs().at(place)->node();
  if (node->kind() == jit::prim::TupleConstruct) return node->inputs().vec();
  std::vector<jit::Value*> elements;
  for (const c10::TypePtr& type : types) {
    jit::Value* element = branch->appendNode(branch->owningGraph()->create(jit::prim::Uninitialized))->output();
    elements.push_back(element->setType(type));
  }
  return elements;
}

void split(jit::Node* condition, size_t place) {
  jit::Value* tuple = condition->output(place);
  const auto type = tuple->type()->expect<c10::TupleType>();
  for (jit::Block* branch : condition->blocks()) {
    for (jit::Value* element : elements_of(branch, place, type->elements())) branch->registerOutput(element);
    branch->eraseOutput(place);
  }
  std::vector<jit::Value*> elements;
  for (const c10::TypePtr& element : type->elements()) elements.push_back(condition->addOutput()->setType(element));
  const jit::WithInsertPoint behind(condition->next());
  jit::Graph* graph = condition->owningGraph();
  jit::Value* made = graph->insertNode(graph->createTuple(elements))->output();
  made->setType(type);
  tuple->replaceAllUsesWith(made);
  condition->eraseOutput(place);
}

void split_in(jit::Block* block) {
  for (jit::Node* node : block->nodes()) {
    for (jit::Block* inner : node->blocks()) split_in(inner);  // first, since its results may be those of this one
    if (node->kind() != jit::prim::If) continue;
    for (size_t place = node->outputs().size(); place-- > 0;) {
      if (can_be_split(node, place)) split(node, place);
    }
  }
}

}  // namespace

void split_tuple_results(jit::Graph& graph) {
  split_in(graph.block());
}

}  // namespace bnfold
