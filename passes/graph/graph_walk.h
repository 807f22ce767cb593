// Visits the nodes of a graph, those of inner blocks and of forked graphs too, and tells which block is in which.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Calls `visit(node)` for each node below `block` in the order of the graph, an outer node before its blocks. `visit` must not remove
// nodes.
template <typename Visit>
void for_each_node(const torch::jit::Block* block, const Visit& visit) {
  for (torch::jit::Node* node : const_cast<torch::jit::Block*>(block)->nodes()) {
    visit(node);
    for (const torch::jit::Block* inner : node->blocks()) for_each_node(inner, visit);
    if (node->kind() == torch::jit::prim::fork && node->hasAttribute(torch::jit::attr::Subgraph)) {
      for_each_node(node->g(torch::jit::attr::Subgraph)->block(), visit);
    }
  }
}

template <typename Predicate>
bool any_node(const torch::jit::Graph& graph, const Predicate& predicate) {
  bool found = false;
  for_each_node(const_cast<torch::jit::Graph&>(graph).block(), [&](const torch::jit::Node* node) { found |= predicate(node); });
  return found;
}

inline bool contains(const torch::jit::Graph& graph, torch::jit::NodeKind kind) {
  return any_node(graph, [kind](const torch::jit::Node* node) { return node->kind() == kind; });
}

// Whether `block` is `outer` or stands in one of its nodes.
inline bool is_inside(const torch::jit::Block* block, const torch::jit::Block* outer) {
  while (block != outer && block->owningNode() != nullptr) block = block->owningNode()->owningBlock();
  return block == outer;
}

// Whether `node` stands in one of the blocks of `outer`.
inline bool is_below(const torch::jit::Node* node, const torch::jit::Node* outer) {
  for (const torch::jit::Block* block : outer->blocks()) {
    if (is_inside(node->owningBlock(), block)) return true;
  }
  return false;
}

// Whether the graph returns the value there, to who called it.
inline bool is_output(const torch::jit::Use& use) {
  return use.user->kind() == torch::jit::prim::Return && use.user->owningBlock() == use.user->owningGraph()->block();
}

}  // namespace bnfold
