#include "graph/growing_lists.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_append(const jit::Node* node) {
  return node->kind() == jit::aten::append;
}

std::vector<jit::Node*> users_in_order(const jit::Node* list) {
  std::vector<jit::Node*> users;
  for (const jit::Use& use : list->output()->uses()) users.push_back(use.user);
  std::sort(users.begin(), users.end(), [](const jit::Node* one, const jit::Node* other) { return one->isBefore(other); });
  return users;
}

// Where in a list of `size` the item is that `node` reads; nothing where it reads none, or none that is there.
std::optional<size_t> index_read(const jit::Node* node, size_t size) {
  const auto index = node->kind() == jit::aten::__getitem__ ? constant_int(node->input(1)) : std::nullopt;
  if (!index) return std::nullopt;
  const int64_t from_start = *index < 0 ? *index + static_cast<int64_t>(size) : *index;
  return from_start >= 0 && from_start < static_cast<int64_t>(size) ? std::optional<size_t>(from_start) : std::nullopt;
}

// Whether nobody else sees the list, and it grows in the order in which its block is written.
bool only_grows_and_is_read(const jit::Node* list) {
  const auto& uses = list->output()->uses();
  const bool here = std::all_of(uses.begin(), uses.end(), [list](const jit::Use& use) {
    return use.offset == 0 && use.user->owningBlock() == list->owningBlock();
  });
  if (!here) return false;
  const size_t at_first = list->inputs().size();
  size_t size = at_first;
  for (const jit::Node* user : users_in_order(list)) {
    if (is_append(user) && !user->output()->hasUses()) {
      ++size;
    } else if (operator_of(user).shape != Shape::concatenation && !index_read(user, size)) {
      return false;
    }
  }
  return size > at_first;
}

void spell_out(jit::Node* list) {
  std::vector<jit::Value*> content(list->inputs().begin(), list->inputs().end());
  jit::Graph* graph = list->owningGraph();
  for (jit::Node* user : users_in_order(list)) {
    if (operator_of(user).shape == Shape::concatenation) {
      const jit::WithInsertPoint before(user);
      user->replaceInput(0, graph->insertNode(graph->createList(c10::TensorType::get(), content))->output());
      continue;
    }
    if (is_append(user)) content.push_back(user->input(1));
    if (const auto index = index_read(user, content.size())) user->output()->replaceAllUsesWith(content[*index]);
    user->destroy();
  }
  list->destroy();
}

bool adds_new_list(const jit::Node* node) {
  if (!is_one_of(node, {"add_", "extend"}) || node->input(0)->type()->kind() != c10::TypeKind::ListType) return false;
  return node->input(1)->node()->kind() == jit::prim::ListConstruct && node->input(1)->uses().size() == 1;
}

}  // namespace

void append_one_by_one(jit::Graph& graph) {
  std::vector<jit::Node*> additions;
  for_each_node(graph.block(), [&additions](jit::Node* node) {
    if (adds_new_list(node)) additions.push_back(node);
  });
  for (jit::Node* addition : additions) {
    const jit::WithInsertPoint before(addition);
    jit::Value* list = addition->input(0);
    jit::Node* items = addition->input(1)->node();
    for (jit::Value* item : items->inputs()) addition->owningGraph()->insert(jit::aten::append, {list, item});
    for (jit::Value* same : addition->outputs()) same->replaceAllUsesWith(list);
    addition->destroy();
    items->destroy();
  }
}

void spell_out_growing_lists(jit::Graph& graph) {
  std::vector<jit::Node*> lists;
  for_each_node(graph.block(), [&lists](jit::Node* node) {
    if (node->kind() == jit::prim::ListConstruct && only_grows_and_is_read(node)) lists.push_back(node);
  });
  for (jit::Node* list : lists) spell_out(list);
}

}  // namespace bnfold
