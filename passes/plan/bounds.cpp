//   before   x --> clamp_min(lower) --> clamp_max(upper) --> y          after   x --> clamp(lower, upper) --> y
//
// Formula     min(max(x, lower), upper) is how clamp is defined, for lower > upper and for NaN too.
// Conditions  both bounds are static tensors, and nothing else reads what lies between
//             nothing writes into x between the two
#include "plan/bounds.h"

#include <vector>

#include "graph/graph_walk.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_static(const jit::Value* bound, const ParameterStore& store) {
  const auto tensor = store.read(bound);
  return tensor && tensor->defined();
}

bool is_upper_of_both(const jit::Node* node, const ParameterStore& store, const Memory& memory) {
  if (!is_one_of(node, {"clamp_max", "minimum"}) || !is_static(node->input(1), store)) return false;
  const jit::Node* lower = node->input(0)->node();
  return is_one_of(lower, {"clamp_min", "maximum"}) && is_static(lower->input(1), store) && lower->output()->uses().size() == 1 &&
         lower->owningBlock() == node->owningBlock() && memory.read_the_same(lower->input(0), lower, node);
}

}  // namespace

void join_bounds(jit::Graph& graph, const ParameterStore& store, Memory& memory,
                 const std::function<void(const JoinedBounds&)>& joined) {
  std::vector<jit::Node*> uppers;
  for_each_node(graph.block(), [&](jit::Node* node) {
    if (is_upper_of_both(node, store, memory)) uppers.push_back(node);
  });
  for (jit::Node* upper : uppers) {
    jit::Node* lower = upper->input(0)->node();
    const jit::WithInsertPoint before(upper);
    jit::Node* clamp = graph.insertNode(graph.create(jit::aten::clamp, {lower->input(0), lower->input(1), upper->input(1)}));
    clamp->copyMetadata(upper);
    clamp->output()->setType(c10::TensorType::get());
    upper->output()->replaceAllUsesWith(clamp->output());
    joined({lower->output(), upper->output(), clamp->output()});
    memory.adopt(clamp->output(), upper->output());
    memory.forget(upper->output());
    memory.forget(lower->output());
    upper->destroy();
    lower->destroy();
  }
}

}  // namespace bnfold
