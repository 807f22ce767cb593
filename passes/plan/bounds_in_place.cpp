#include "plan/bounds_in_place.h"

#include <set>
#include <vector>

#include "graph/graph_walk.h"
#include "graph/operators.h"
#include "knowledge/memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// On a GPU the fusers take only what writes nothing.
bool is_added_bound(const jit::Node* node, const ParameterStore& store) {
  if (node->kind() != jit::aten::maximum && node->kind() != jit::aten::minimum && node->kind() != jit::aten::clamp) return false;
  const ParameterStore::Added* bound = store.added(node->input(1)->node());
  return bound != nullptr && !bound->tensor.is_cuda();
}

// New memory of the node that computes it, which a backward pass does not read either.
bool is_new(const jit::Value* value) {
  static const std::set<jit::NodeKind> makers = {jit::aten::cat, jit::aten::add, jit::aten::maximum};
  return is_convolution(value->node()) || makers.count(value->node()->kind()) != 0;
}

jit::NodeKind in_place(jit::NodeKind kind) {
  if (kind == jit::aten::clamp) return jit::aten::clamp_;
  return kind == jit::aten::maximum ? jit::aten::clamp_min_ : jit::aten::clamp_max_;
}

}  // namespace

void write_bounds_in_place(jit::Graph& graph, const ParameterStore& store) {
  std::vector<jit::Node*> bounds;
  for_each_node(graph.block(), [&](jit::Node* node) {
    if (is_added_bound(node, store) && is_new(node->input(0)) && is_only_reader(node, node->input(0))) bounds.push_back(node);
  });
  for (jit::Node* node : bounds) node->replaceWithNewSymbol(in_place(node->kind()));
  for (jit::Node* node : bounds) node->destroy();
}

}  // namespace bnfold
