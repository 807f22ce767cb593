#include "module/clean_up.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include "graph/graph_walk.h"
#include "module/convolution_ranks.h"
#include "module/hidden_writes.h"

namespace bnfold {

namespace {

// With the graph, not the block alone: only then is it seen that a norm that trains writes its statistics. A norm that is gone no longer
// stands between a convolution and what asks for a rank.
void drop_dead_code(const std::shared_ptr<torch::jit::Graph>& graph) {
  ask_ranks_before_convolutions(*graph);
  guard_hidden_writes(*graph);
  torch::jit::EliminateDeadCode(graph);
  release_hidden_writes(*graph);
  for_each_node(graph->block(), [](const torch::jit::Node* node) {
    if (node->kind() == torch::jit::prim::fork) drop_dead_code(node->g(torch::jit::attr::Subgraph));
  });
}

}  // namespace

void clean_up(Program& program) {
  // What is made, is made before anything goes: the parameter store knows values by their addresses, which are taken again.
  for (Program::Method& method : program.methods) read_hidden_writes(*method.graph);
  for (Program::Method& method : program.methods) drop_dead_code(method.graph);
}

void clean_up(const std::shared_ptr<torch::jit::Graph>& graph) {
  read_hidden_writes(*graph);
  drop_dead_code(graph);
}

}  // namespace bnfold
