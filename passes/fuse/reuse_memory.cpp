#include "fuse/reuse_memory.h"

#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <string>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The name without the underscore of what works in place.
std::string functional_name(const jit::Node* node) {
  std::string name = node->kind().toUnqualString();
  name.pop_back();
  return name;
}

// The operator that overwrites its first operand; empty where there is none.
std::string in_place_name(const jit::Node* node) {
  if (!node->kind().is_aten()) return "";
  if (node->kind() == jit::aten::maximum) return "clamp_min_";
  if (node->kind() == jit::aten::minimum) return "clamp_max_";
  c10::OperatorName name = node->schema().operator_name();
  name.name += "_";
  return jit::findOperatorFor(name) ? node->kind().toUnqualString() + std::string("_") : "";
}

// Gives no element that it reads twice, and may give it in the same memory.
bool rearranges(const jit::Node* node) {
  if (operator_of(node).storage != Storage::view) return false;
  switch (operator_of(node).shape) {
    case Shape::same:
    case Shape::listed:
    case Shape::flattened:
    case Shape::permuted:
    case Shape::transposed:
    case Shape::unsqueezed:
    case Shape::squeezed:
    case Shape::selected:
    case Shape::cut:
      return true;
    default:
      return false;
  }
}

// Whether the value is memory that an operator surely made, through those that work in place or rearrange it as its only readers.
bool is_new(const jit::Value* value) {
  const jit::Node* node = value->node();
  while (rearranges(node) && is_only_reader(node, node->input(0))) node = node->input(0)->node();
  return operator_of(node).storage == Storage::fresh;
}

// Whether the operator that makes new memory gives it the dtype of its first operand: no other one makes it wider. A number doesn't, nor does a
// tensor without dimensions beside one that has some.
bool keeps_dtype(const jit::Node* node, const Facts& facts) {
  const Dtype functional = functional_operator_of(node).dtype;
  if (functional == Dtype::same || functional == Dtype::floating || functional == Dtype::inexact) return true;
  if (functional != Dtype::promoted && functional != Dtype::quotient) return false;
  const jit::Value* first = node->input(0);
  const auto operands = node->inputs().slice(1);
  return std::all_of(operands.begin(), operands.end(), [&](const jit::Value* operand) {
    if (!may_be_tensor(operand) || facts.have_one_dtype(first, operand)) return true;
    const auto tensor = constant_tensor(operand);
    const bool has_no_dimensions = tensor && tensor->dim() == 0 && !tensor->is_complex();
    return has_no_dimensions && facts.is_inexact(first) && facts.rank_of(first).value_or(0) > 0;
  });
}

// Whether another operand may make the result larger.
bool needs_sizes(const jit::Node* node) {
  const auto operands = node->inputs().slice(1);
  return functional_operator_of(node).shape == Shape::broadcast && std::any_of(operands.begin(), operands.end(), may_be_tensor);
}

// Replaces every node for which `name_for` has another name, in the order of the graph.
template <typename NameFor>
void rename(jit::Graph& graph, Facts& facts, const NameFor& name_for) {
  std::vector<jit::Node*> nodes;
  for_each_node(graph.block(), [&nodes](jit::Node* node) {
    if (node->outputs().size() == 1) nodes.push_back(node);  // sort makes places, too, and nothing works in place as it does
  });
  for (jit::Node* node : nodes) {
    const std::string name = name_for(node);
    if (name.empty()) continue;
    facts.rely_on_dtype(node->output(), node->owningBlock());
    if (needs_sizes(node)) facts.rely_on_sizes(node->output(), node->owningBlock());
    jit::Node* replacement = node->replaceWithNewSymbol(c10::Symbol::aten(name));
    replacement->copyMetadata(node);
    facts.replace(node->output(), replacement->output());
    node->destroy();
  }
}

}  // namespace

void use_new_memory(jit::Graph& graph, Facts& facts) {
  rename(graph, facts, [&facts](const jit::Node* node) {
    const bool overwrites = operator_of(node).in_place && functional_operator_of(node).storage == Storage::fresh;
    if (!overwrites || !keeps_dtype(node, facts)) return std::string();
    return is_new(node->input(0)) && is_only_reader(node, node->input(0)) ? functional_name(node) : std::string();
  });
}

void reuse_memory(jit::Graph& graph, Facts& facts) {
  rename(graph, facts, [&facts](const jit::Node* node) {
    const Operator& known = operator_of(node);
    const bool makes_like = known.storage == Storage::fresh && known.order == Order::kept &&
                            (known.shape == Shape::same || known.shape == Shape::broadcast);
    if (!makes_like || !is_new(node->input(0)) || !is_only_reader(node, node->input(0))) return std::string();
    if (is_part(node->input(0)) && is_order_visible(node->output())) return std::string();
    if (!facts.have_one_dtype(node->input(0), node->output())) return std::string();
    return !needs_sizes(node) || facts.have_one_size(node->input(0), node->output()) ? in_place_name(node) : std::string();
  });
}

}  // namespace bnfold
