#include "graph/changed_lists.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/list_maker.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

using Content = std::vector<jit::Value*>;

// The place in a list of `size` that `index` counts; nothing where it is computed or there is no item.
std::optional<size_t> place_of(const jit::Value* index, size_t size) {
  const auto number = constant_int(index);
  if (!number) return std::nullopt;
  const int64_t from_start = *number < 0 ? *number + static_cast<int64_t>(size) : *number;
  return from_start >= 0 && from_start < static_cast<int64_t>(size) ? std::optional<size_t>(from_start) : std::nullopt;
}

// insert() takes places beyond both ends for the ends.
std::optional<size_t> place_to_insert(const jit::Value* index, size_t size) {
  const auto number = constant_int(index);
  if (!number) return std::nullopt;
  const auto end = static_cast<int64_t>(size);
  return static_cast<size_t>(std::clamp<int64_t>(*number < 0 ? *number + end : *number, 0, end));
}

// How many items the list has behind `node`, which had `size` before; nothing where it is not known what that does to the list.
std::optional<size_t> size_behind(const jit::Node* node, size_t size) {
  const auto where = [](bool known, size_t behind) { return known ? std::optional<size_t>(behind) : std::nullopt; };
  if (is_one_of(node, {"append"})) return where(!node->output()->hasUses(), size + 1);
  if (is_one_of(node, {"insert"})) return where(place_to_insert(node->input(1), size).has_value(), size + 1);
  if (is_one_of(node, {"pop"})) return where(place_of(node->input(1), size).has_value(), size - 1);
  if (is_one_of(node, {"__getitem__"})) return where(place_of(node->input(1), size).has_value(), size);
  if (is_one_of(node, {"_set_item"})) {
    return where(place_of(node->input(1), size).has_value() && !node->output()->hasUses(), size);
  }
  return size;
}

// Whether what the operator does is known from the size of the list alone.
bool is_replayed(const jit::Node* node) {
  return is_one_of(node, {"append", "insert", "pop", "_set_item", "reverse", "__getitem__", "len"});
}

bool changes_list(const jit::Node* node) {
  return is_one_of(node, {"append", "insert", "pop", "_set_item", "reverse"});
}

// What uses the list first in the order of its block: a node of that block, which may hold the use in a block of its own.
std::vector<jit::Node*> users_in_order(const jit::Node* list) {
  std::vector<jit::Node*> users;
  for (const jit::Use& use : list->output()->uses()) {
    jit::Node* user = use.user;
    while (user->owningBlock() != list->owningBlock()) user = user->owningBlock()->owningNode();
    if (std::find(users.begin(), users.end(), user) == users.end()) users.push_back(user);
  }
  std::sort(users.begin(), users.end(), [](const jit::Node* one, const jit::Node* other) { return one->isBefore(other); });
  return users;
}

// Where `user` uses the list; nothing where it does so twice, or in a block of its own.
std::optional<size_t> place_of_use(const jit::Node* user, const jit::Node* list) {
  const auto inputs = user->inputs();
  if (std::count(inputs.begin(), inputs.end(), list->output()) != 1) return std::nullopt;
  return static_cast<size_t>(std::find(inputs.begin(), inputs.end(), list->output()) - inputs.begin());
}

// The users in front of the first of which it is not known what it does.
std::vector<jit::Node*> known_users(const jit::Node* list) {
  std::vector<jit::Node*> known;
  std::optional<size_t> size = list->inputs().size();
  for (jit::Node* user : users_in_order(list)) {
    const auto place = place_of_use(user, list);
    if (place == size_t{0} && is_replayed(user)) {
      size = size_behind(user, *size);
    } else if (!place || !only_reads_list({user, *place})) {
      break;
    }
    if (!size) break;
    known.push_back(user);
  }
  return known;
}

void change(Content& content, const jit::Node* node) {
  const auto at = [&](size_t place) { return content.begin() + static_cast<std::ptrdiff_t>(place); };
  if (is_one_of(node, {"append"})) content.push_back(node->input(1));
  if (is_one_of(node, {"insert"})) content.insert(at(place_to_insert(node->input(1), content.size()).value()), node->input(2));
  if (is_one_of(node, {"pop"})) content.erase(at(place_of(node->input(1), content.size()).value()));
  if (is_one_of(node, {"_set_item"})) content.at(place_of(node->input(1), content.size()).value()) = node->input(2);
  if (is_one_of(node, {"reverse"})) std::reverse(content.begin(), content.end());
}

jit::Value* insert_list(jit::Node* before, const jit::Node* list, const Content& content) {
  const jit::WithInsertPoint here(before);
  return before->owningGraph()
      ->insertNode(before->owningGraph()->createList(list->output()->type()->containedType(0), content))
      ->output();
}

// Gives what reads the list what it reads, and takes out what does.
void replay(jit::Node* user, const jit::Node* list, Content& content) {
  if (!is_replayed(user)) {
    user->replaceInput(place_of_use(user, list).value(), insert_list(user, list, content));
    return;
  }
  if (is_one_of(user, {"pop", "__getitem__"})) {
    user->output()->replaceAllUsesWith(content.at(place_of(user->input(1), content.size()).value()));
  }
  if (user->kind() == jit::aten::len) {
    const jit::WithInsertPoint before(user);
    user->output()->replaceAllUsesWith(user->owningGraph()->insertConstant(static_cast<int64_t>(content.size())));
  }
  change(content, user);
  user->destroy();
}

void spell_out(jit::Node* list, const std::vector<jit::Node*>& known) {
  Content content(list->inputs().begin(), list->inputs().end());
  for (jit::Node* user : known) replay(user, list, content);
  const std::vector<jit::Node*> others = users_in_order(list);
  if (!others.empty()) list->output()->replaceAllUsesWith(insert_list(others.front(), list, content));
  list->destroy();
}

bool adds_new_list(const jit::Node* node) {
  if (!is_one_of(node, {"add_", "extend"}) || node->input(0)->type()->kind() != c10::TypeKind::ListType) return false;
  return items_of_list(node->input(1)) && node->input(1)->uses().size() == 1;
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

bool spell_out_changed_lists(jit::Graph& graph) {
  std::vector<jit::Node*> lists;
  for_each_node(graph.block(), [&lists](jit::Node* node) {
    if (node->kind() == jit::prim::ListConstruct) lists.push_back(node);
  });
  bool changed = false;
  for (jit::Node* list : lists) {
    const auto known = known_users(list);
    if (std::none_of(known.begin(), known.end(), changes_list)) continue;
    spell_out(list, known);
    changed = true;
  }
  return changed;
}

}  // namespace bnfold
