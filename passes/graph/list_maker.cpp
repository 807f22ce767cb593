#include "graph/list_maker.h"

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_no_list(const jit::Value* value) {
  const c10::TypeKind kind = value->type()->kind();
  return kind == c10::TypeKind::TensorType || kind == c10::TypeKind::IntType || kind == c10::TypeKind::FloatType ||
         kind == c10::TypeKind::BoolType;
}

// Whether the graph returns it, alone or in a tuple. Nothing reads it behind that.
bool leaves_at_the_end(const jit::Use& use) {
  if (use.user->kind() != jit::prim::TupleConstruct) return is_output(use);
  const auto& uses = use.user->output()->uses();
  return std::all_of(uses.begin(), uses.end(), is_output);
}

}  // namespace

bool only_reads_list(const jit::Use& use) {
  const jit::Node* node = use.user;
  if (node->kind() == jit::prim::ListUnpack) return true;
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr || use.offset >= schema->arguments().size()) return false;
  const c10::AliasInfo* alias = schema->arguments()[use.offset].alias_info();
  if (alias == nullptr) return true;
  const auto outputs = node->outputs();
  return !alias->isWrite() && !alias->isWildcardAfter() && std::all_of(outputs.begin(), outputs.end(), is_no_list);
}

const jit::Node* maker_of_list(const jit::Value* list) {
  const auto& uses = list->uses();
  const bool stays =
      std::all_of(uses.begin(), uses.end(), [](const jit::Use& use) { return only_reads_list(use) || leaves_at_the_end(use); });
  return stays ? list->node() : nullptr;
}

std::optional<at::ArrayRef<const jit::Value*>> items_of_list(const jit::Value* list) {
  const jit::Node* maker = maker_of_list(list);
  if (maker == nullptr || maker->kind() != jit::prim::ListConstruct) return std::nullopt;
  return maker->inputs();
}

const jit::Value* tensor_of_sizes(const jit::Value* list) {
  const jit::Node* maker = maker_of_list(list);
  const bool is_all = maker != nullptr && maker->kind() == jit::aten::size && maker->inputs().size() == 1;
  return is_all ? maker->input() : nullptr;
}

}  // namespace bnfold
