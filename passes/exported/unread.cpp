#include "exported/unread.h"

#include <algorithm>
#include <vector>

namespace bnfold::exported {

namespace jit = torch::jit;

namespace {

bool is_unread(const jit::Node* node) {
  const auto outputs = node->outputs();
  const auto is_read = [](const jit::Value* output) { return !output->uses().empty(); };
  if (outputs.empty() || std::any_of(outputs.begin(), outputs.end(), is_read)) return false;
  if (node->kind().is_prim()) return true;
  const c10::FunctionSchema* schema = node->kind().is_aten() ? node->maybeSchema() : nullptr;
  if (schema == nullptr || schema->is_mutable() || node->isNondeterministic()) return false;
  return node->kind() != jit::aten::item && node->kind() != jit::aten::_local_scalar_dense;
}

}  // namespace

void remove_unread(jit::Graph& graph) {
  std::vector<jit::Node*> all(graph.nodes().begin(), graph.nodes().end());
  for (auto node = all.rbegin(); node != all.rend(); ++node) {
    if (is_unread(*node)) (*node)->destroy();
  }
}

}  // namespace bnfold::exported
