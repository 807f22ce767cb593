#include "exported/unread.h"

#include <algorithm>
#include <vector>

#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold::exported {

namespace jit = torch::jit;

namespace {

bool is_read(const jit::Value* value) {
  return !value->uses().empty();
}

// Whether what reads `value` beside `node` reads it before, and makes memory of its own or is overwritten in turn.
bool is_read_before(const jit::Node* node, const jit::Value* value) {
  return std::all_of(value->uses().begin(), value->uses().end(), [&](const jit::Use& use) {
    if (use.user == node) return true;
    if (!use.user->isBefore(node)) return false;
    const Operator& reader = operator_of(use.user);
    return reader.storage == Storage::fresh || (reader.in_place && is_read_before(node, use.user->output()));
  });
}

// Whether nobody sees what `node` writes into `value`, which is new memory, or what others wrote into.
bool is_unseen(const jit::Node* node, const jit::Value* value) {
  while (is_read_before(node, value)) {
    const Operator& maker = operator_of(value->node());
    if (!maker.in_place) return maker.storage == Storage::fresh;
    value = value->node()->input(0);
  }
  return false;
}

// Whether it says something of a program beside its result: a number out of a tensor may name sizes, and an assertion may fail.
bool says_more(const jit::Node* node) {
  return is_one_of(node, {"item", "_local_scalar_dense", "_functional_assert_async", "_functional_assert_scalar",
                          "_functional_sym_constrain_range", "_functional_sym_constrain_range_for_size"});
}

bool is_unread(const jit::Node* node) {
  const auto outputs = node->outputs();
  if (outputs.empty() || std::any_of(outputs.begin(), outputs.end(), is_read)) return false;
  if (node->kind().is_prim()) return true;
  const c10::FunctionSchema* schema = node->kind().is_aten() ? node->maybeSchema() : nullptr;
  const auto trains = [node](const jit::Value* input) { return writes_statistics(node, input); };
  const auto inputs = node->inputs();
  if (schema == nullptr || node->isNondeterministic() || std::any_of(inputs.begin(), inputs.end(), trains)) return false;
  if (schema->is_mutable()) return operator_of(node).in_place && is_unseen(node, node->input(0));
  return !says_more(node);
}

}  // namespace

void remove_unread(jit::Graph& graph) {
  bool removed = true;
  while (removed) {
    removed = false;
    std::vector<jit::Node*> all(graph.nodes().begin(), graph.nodes().end());
    for (auto node = all.rbegin(); node != all.rend(); ++node) {
      if (!is_unread(*node)) continue;
      (*node)->destroy();
      removed = true;
    }
  }
}

}  // namespace bnfold::exported
