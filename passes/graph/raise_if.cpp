#include "graph/raise_if.h"

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

}  // namespace bnfold
