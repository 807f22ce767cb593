#include "module/convolution_ranks.h"

#include "graph/graph_walk.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

void ask_ranks_before_convolutions(jit::Graph& graph) {
  if (changes_dimensions_in_place(graph)) return;
  for_each_node(graph.block(), [](jit::Node* node) {
    while (node->kind() == jit::aten::dim && is_convolution(node->input()->node())) {
      node->replaceInput(0, node->input()->node()->input(0));
    }
  });
}

}  // namespace bnfold
