#include "fuse/step.h"

namespace bnfold {

namespace jit = torch::jit;

jit::Value* insert_operator(const char* kind, at::ArrayRef<jit::Value*> inputs, jit::Node* layer) {
  jit::Graph* graph = layer->owningGraph();
  jit::Node* node = graph->insertNode(graph->create(c10::Symbol::fromQualString(kind), inputs));
  node->copyMetadata(layer);
  return node->output()->setType(c10::TensorType::get());
}

void replace_by_step(const std::vector<jit::Node*>& nodes, jit::Value* step) {
  nodes.back()->output()->replaceAllUsesWith(step);
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) (*node)->destroy();
}

}  // namespace bnfold
