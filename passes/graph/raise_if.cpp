#include "graph/raise_if.h"

#include <algorithm>

namespace bnfold {

namespace jit = torch::jit;

void insert_raise_if(jit::Graph& graph, jit::Value* condition, const std::string& message) {
  jit::Value* text = graph.insertConstant(message);
  jit::Value* exception = graph.insertConstant("builtins.RuntimeError");
  jit::Node* branch = graph.insertNode(graph.create(jit::prim::If, {condition}, 0));
  jit::Block* raising = branch->addBlock();
  branch->addBlock();
  raising->appendNode(graph.create(jit::prim::RaiseException, {text, exception}, 0));
}

bool raises(const jit::Block* block) {
  const auto nodes = const_cast<jit::Block*>(block)->nodes();
  return std::any_of(nodes.begin(), nodes.end(), [](const jit::Node* node) { return node->kind() == jit::prim::RaiseException; });
}

}  // namespace bnfold
