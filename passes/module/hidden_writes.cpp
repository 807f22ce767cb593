#include "module/hidden_writes.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

c10::Symbol mark() {
  return c10::Symbol::attr("keeps_a_write");
}

// Whether what makes `value` may return what it was given, and its schema does not say so.
bool is_unannounced(const jit::Value* value) {
  const jit::Node* node = value->node();
  if (!node->kind().is_aten() || operator_of(node).storage == Storage::fresh || node->maybeSchema() == nullptr) return false;
  const auto& returns = node->schema().returns();
  return value->offset() < returns.size() && returns[value->offset()].alias_info() == nullptr;
}

// The nodes that write, with what they write into.
std::vector<std::pair<jit::Node*, jit::Value*>> hidden_writes(const jit::Graph& graph) {
  const Memory memory(graph);
  std::vector<std::pair<jit::Node*, jit::Value*>> writes;
  for_each_node(graph.block(), [&](jit::Node* node) {
    for (jit::Value* input : node->inputs()) {
      if (!writes_into(node, input)) continue;
      const auto shared = memory.sharing(input);
      if (std::any_of(shared.begin(), shared.end(), is_unannounced)) writes.emplace_back(node, input);
    }
  });
  return writes;
}

}  // namespace

// What is printed counts as read.
void guard_hidden_writes(jit::Graph& graph) {
  for (const auto& [writer, value] : hidden_writes(graph)) {
    jit::Value* read = writer->outputs().empty() ? value : writer->output(0);
    writer->owningGraph()->create(jit::prim::Print, {read}, 0)->i_(mark(), 1)->insertAfter(writer);
  }
}

void release_hidden_writes(jit::Graph& graph) {
  std::vector<jit::Node*> readers;
  for_each_node(graph.block(), [&readers](jit::Node* node) {
    if (node->kind() == jit::prim::Print && node->hasAttribute(mark())) readers.push_back(node);
  });
  for (jit::Node* reader : readers) reader->destroy();
}

}  // namespace bnfold
