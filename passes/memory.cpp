#include "memory.h"

#include <algorithm>
#include <unordered_set>

#include "operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

const jit::Value* owner_of(const jit::Value* value) {
  while (true) {
    const jit::Node* producer = value->node();
    const bool view = producer->kind().is_aten() && !producer->inputs().empty() && may_return_its_input(producer);
    if (!view || value != producer->outputs().at(0)) return value;
    value = producer->input(0);
  }
}

}  // namespace

Writers writers_of(const jit::Value* value, const jit::Node* norm) {
  Writers writers;
  std::vector<const jit::Value*> pending = {owner_of(value)};
  std::unordered_set<const jit::Value*> seen;
  while (!pending.empty()) {
    const jit::Value* alias = pending.back();
    pending.pop_back();
    if (!seen.insert(alias).second) continue;
    for (const jit::Use& use : alias->uses()) {
      const jit::Node* user = use.user;
      if (user == norm || reads_metadata_only(user, alias)) continue;
      if (writes_into(user, alias)) writers.nodes.push_back(user);
      if (user->kind() == jit::prim::ListConstruct && only_concatenation(user) != nullptr) continue;
      if (user->kind() == jit::prim::Return) {
        const jit::Node* owner = user->owningBlock()->owningNode();
        if (owner != nullptr) pending.insert(pending.end(), owner->outputs().begin(), owner->outputs().end());
      } else if (!user->kind().is_aten()) {
        writers.unknown |= user->kind() != jit::prim::RaiseException;
      } else if (may_return_its_input(user) && use.offset == 0) {
        pending.insert(pending.end(), user->outputs().begin(), user->outputs().end());
      }
    }
  }
  return writers;
}

jit::Node* only_concatenation(const jit::Node* list) {
  jit::Node* concatenation = nullptr;
  for (const jit::Use& use : list->output()->uses()) {
    if (concatenation != nullptr || (use.user->kind() != jit::aten::cat && use.user->kind() != jit::aten::concat)) return nullptr;
    concatenation = use.user;
  }
  return concatenation;
}

}  // namespace bnfold
