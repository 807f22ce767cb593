#include "fuse/growing_lists.h"

#include <algorithm>
#include <vector>

#include "graph_walk.h"
#include "operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_append(const jit::Node* node) {
  return node->kind() == jit::aten::append;
}

// That nobody else sees the list, and that it grows in the order in which its block is written.
bool only_grows_and_is_concatenated(const jit::Node* list) {
  const auto& uses = list->output()->uses();
  const bool grows = std::any_of(uses.begin(), uses.end(), [](const jit::Use& use) { return is_append(use.user); });
  return grows && std::all_of(uses.begin(), uses.end(), [list](const jit::Use& use) {
           const jit::Node* user = use.user;
           if (use.offset != 0 || user->owningBlock() != list->owningBlock()) return false;
           return is_append(user) ? !user->output()->hasUses() : is_one_of(user, {"cat", "concat"});
         });
}

void spell_out(jit::Node* list) {
  std::vector<jit::Node*> users;
  for (const jit::Use& use : list->output()->uses()) users.push_back(use.user);
  std::sort(users.begin(), users.end(), [](const jit::Node* one, const jit::Node* other) { return one->isBefore(other); });
  std::vector<jit::Value*> content(list->inputs().begin(), list->inputs().end());
  jit::Graph* graph = list->owningGraph();
  for (jit::Node* user : users) {
    if (is_append(user)) {
      content.push_back(user->input(1));
      user->destroy();
      continue;
    }
    const jit::WithInsertPoint before(user);
    user->replaceInput(0, graph->insertNode(graph->createList(c10::TensorType::get(), content))->output());
  }
  list->destroy();
}

}  // namespace

void spell_out_growing_lists(jit::Graph& graph) {
  std::vector<jit::Node*> lists;
  for_each_node(graph.block(), [&lists](jit::Node* node) {
    if (node->kind() == jit::prim::ListConstruct && only_grows_and_is_concatenated(node)) lists.push_back(node);
  });
  for (jit::Node* list : lists) spell_out(list);
}

}  // namespace bnfold
