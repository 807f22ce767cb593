#include "module/hidden_writes.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/raise_if.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

c10::Symbol mark() {
  return c10::Symbol::attr("keeps_a_write");
}

// Whether what makes `value` may return what it was given, and its schema does not say so.
bool is_unannounced(const jit::Value* value) {
  const jit::Node* node = value->node();
  if (!node->kind().is_aten() || !may_hold_tensor(*value->type())) return false;
  if (operator_of(node).storage == Storage::fresh || node->maybeSchema() == nullptr) return false;
  const auto& returns = node->schema().returns();
  return value->offset() < returns.size() && returns[value->offset()].alias_info() == nullptr;
}

bool has_unannounced(const jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&found](const jit::Node* node) {
    found = found || std::any_of(node->outputs().begin(), node->outputs().end(), is_unannounced);
  });
  return found;
}

// The nodes that write, with the tensors that they write into. Lists and dicts are no tensors of somebody else's.
std::vector<std::pair<jit::Node*, jit::Value*>> hidden_writes(const jit::Graph& graph) {
  if (!has_unannounced(graph)) return {};
  const Memory memory(graph);
  std::vector<std::pair<jit::Node*, jit::Value*>> writes;
  for_each_node(graph.block(), [&](jit::Node* node) {
    for (jit::Value* input : node->inputs()) {
      if (input->type()->kind() != c10::TypeKind::TensorType || !writes_into(node, input)) continue;
      const auto shared = memory.sharing(input);
      if (std::any_of(shared.begin(), shared.end(), is_unannounced)) writes.emplace_back(node, input);
    }
  });
  return writes;
}

jit::Value* written(const jit::Node* writer, jit::Value* into) {
  return writer->outputs().empty() ? into : const_cast<jit::Value*>(writer->output(0));
}

// Which of them, in the order of hidden_writes, dead code elimination would leave.
std::vector<bool> left_by_elimination(jit::Graph& graph) {
  const auto copy = graph.copy();
  const auto writes = hidden_writes(*copy);
  jit::EliminateDeadCode(copy);
  std::unordered_set<const jit::Node*> nodes;
  for_each_node(copy->block(), [&nodes](const jit::Node* node) { nodes.insert(node); });
  std::vector<bool> left;
  left.reserve(writes.size());
  for (const auto& [writer, into] : writes) left.push_back(nodes.count(writer) != 0);
  return left;
}

// No executor knows that the number of elements is never negative.
void insert_read(jit::Node* writer, jit::Value* value) {
  jit::Graph& graph = *writer->owningGraph();
  const jit::WithInsertPoint behind(writer->next());
  jit::Value* elements = graph.insert(c10::Symbol::fromQualString("aten::numel"), {value});
  insert_raise_if(graph, graph.insert(jit::aten::lt, {elements, 0}), "a tensor has a negative number of elements");
}

}  // namespace

// What is printed counts as read.
void guard_hidden_writes(jit::Graph& graph) {
  for (const auto& [writer, value] : hidden_writes(graph)) {
    writer->owningGraph()->create(jit::prim::Print, {written(writer, value)}, 0)->i_(mark(), 1)->insertAfter(writer);
  }
}

void release_hidden_writes(jit::Graph& graph) {
  std::vector<jit::Node*> readers;
  for_each_node(graph.block(), [&readers](jit::Node* node) {
    if (node->kind() == jit::prim::Print && node->hasAttribute(mark())) readers.push_back(node);
  });
  for (jit::Node* reader : readers) reader->destroy();
}

void read_hidden_writes(jit::Graph& graph) {
  const auto writes = hidden_writes(graph);
  if (writes.empty()) return;
  const std::vector<bool> left = left_by_elimination(graph);
  for (size_t i = 0; i < writes.size(); ++i) {
    if (!left[i]) insert_read(writes[i].first, written(writes[i].first, writes[i].second));
  }
}

}  // namespace bnfold
