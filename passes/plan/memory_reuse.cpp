#include "plan/memory_reuse.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"
#include "knowledge/dtypes.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether `value` surely has a dimension.
bool has_dimensions(const jit::Value* value) {
  while (true) {
    switch (operator_of(value->node()).shape) {
      case Shape::convolution:
      case Shape::batched_convolution:
      case Shape::linear:
      case Shape::normalized:
      case Shape::channels:
      case Shape::adapted:
      case Shape::bordered:
      case Shape::interpolated:
      case Shape::matrix:
      case Shape::matrices:
      case Shape::concatenation:
      case Shape::stacked:
      case Shape::flattened:
      case Shape::unsqueezed:
        return true;
      case Shape::same:
      case Shape::broadcast:
      case Shape::padded:
      case Shape::cut:
      case Shape::permuted:
      case Shape::transposed:
        value = value->node()->input(0);
        continue;
      default:
        return false;
    }
  }
}

// Whether the operand promotes no floating `value`: it has the same dtype, or is a number that a trace made a tensor of.
bool promotes_nothing(const jit::Value* operand, const jit::Value* value, const ParameterStore& store) {
  if (!may_be_tensor(operand)) return true;
  const auto dtype = dtype_of(value, store);
  const auto tensor = store.read(operand);
  if (tensor && tensor->defined() && tensor->dim() == 0) {
    if (at::isIntegralType(tensor->scalar_type(), /*includeBool=*/true)) return true;
    if (dtype && tensor->is_floating_point() && has_dimensions(value)) return true;
  }
  return dtype && dtype_of(operand, store) == dtype;
}

// Whether the operator that makes new memory gives it the dtype of its first operand, as the one in place does.
bool keeps_dtype(const jit::Node* node, const ParameterStore& store) {
  const Dtype functional = functional_operator_of(node).dtype;
  if (functional == Dtype::same || functional == Dtype::floating || functional == Dtype::inexact) return true;
  if (functional != Dtype::promoted && functional != Dtype::quotient) return false;
  const auto operands = node->inputs().slice(1);
  return std::all_of(operands.begin(), operands.end(),
                     [&](const jit::Value* operand) { return promotes_nothing(operand, node->input(0), store); });
}

// "aten::relu" of "aten::relu_"
std::string functional_name(const jit::Node* node) {
  std::string name = node->kind().toQualString();
  name.pop_back();
  return name;
}

// Those that stand behind `node`, in its block or outside of it.
std::vector<jit::Use> uses_behind(const jit::Value* value, const jit::Node* node, bool in_its_block) {
  std::vector<jit::Use> uses;
  std::copy_if(value->uses().begin(), value->uses().end(), std::back_inserter(uses), [&](const jit::Use& use) {
    return is_inside(use.user->owningBlock(), node->owningBlock()) == in_its_block && use.user->isAfter(node);
  });
  return uses;
}

bool is_read_in_other_blocks(const jit::Value* value, const jit::Node* node) {
  const std::vector<jit::Use> uses = uses_behind(value, node, /*in_its_block=*/false);
  return !std::all_of(uses.begin(), uses.end(), [](const jit::Use& use) { return reads_metadata_only(use); });
}

// Replaces the node by the operator `name` of the same inputs.
jit::Node* renamed(jit::Node* node, const std::string& name, Memory& memory) {
  jit::Node* replacement = node->replaceWithNewSymbol(c10::Symbol::fromQualString(name));
  replacement->copyMetadata(node);
  memory.adopt(replacement->output(), node->output());
  memory.forget(node->output());
  node->destroy();
  return replacement;
}

std::pair<const jit::Graph*, size_t> number_of(const jit::Value* value) {
  return {value->owningGraph(), value->unique()};
}

std::vector<jit::Node*> nodes_of(const jit::Graph& graph) {
  std::vector<jit::Node*> nodes;
  for_each_node(graph.block(), [&nodes](jit::Node* node) { nodes.push_back(node); });
  return nodes;
}

// A bound that a fold added. On a GPU the fusers take only what writes nothing.
bool is_added_bound(const jit::Node* node, const ParameterStore& store) {
  if (node->kind() != jit::aten::maximum && node->kind() != jit::aten::minimum && node->kind() != jit::aten::clamp) return false;
  const ParameterStore::Added* bound = store.added(node->input(1)->node());
  return bound != nullptr && !bound->tensor.is_cuda();
}

// Whether a backward pass does not read what the node makes.
bool is_not_read_backward(const jit::Node* node) {
  const Operator& known = operator_of(node);
  return is_convolution(node) || keeps_channels(node) || known.shape == Shape::linear || known.shape == Shape::product ||
         known.shape == Shape::matrix || known.shape == Shape::concatenation || known.shape == Shape::normalized ||
         known.storage == Storage::view || is_one_of(node, {"add", "sub", "maximum", "minimum"});
}

// "aten::relu_" of "aten::relu"
std::string overwriting_name(const jit::Node* node) {
  if (node->kind() == jit::aten::maximum) return "aten::clamp_min_";
  if (node->kind() == jit::aten::minimum) return "aten::clamp_max_";
  return node->kind().toQualString() + std::string("_");
}

}  // namespace

ValueNumbers use_new_memory(jit::Graph& graph, const ParameterStore& store) {
  ValueNumbers changed;
  Memory memory(graph);
  for (jit::Node* node : nodes_of(graph)) {
    if (!operator_of(node).in_place || !node->kind().is_aten()) continue;
    jit::Value* value = node->input(0);
    if (!memory.may_be_overwritten(value, node) || is_read_in_other_blocks(value, node)) continue;
    if (!keeps_dtype(node, store)) continue;
    jit::Node* replacement = renamed(node, functional_name(node), memory);
    for (const jit::Use& use : uses_behind(value, replacement, /*in_its_block=*/true)) {
      use.user->replaceInput(use.offset, replacement->output());
    }
    changed.insert(number_of(replacement->output()));
  }
  return changed;
}

void reuse_memory(jit::Graph& graph, const ParameterStore& store, const ValueNumbers& before, bool bounds_too) {
  Memory memory(graph);
  for (jit::Node* node : nodes_of(graph)) {
    const bool overwrote = node->outputs().size() == 1 && before.count(number_of(node->output())) != 0;
    if (!overwrote && !(bounds_too && is_added_bound(node, store))) continue;
    const jit::Value* value = node->input(0);
    const bool free = is_only_reader(node, value) && memory.may_be_overwritten(value, node);
    if (!free || is_part(value) || !is_not_read_backward(value->node())) continue;
    memory.adopt(node->output(), value);
    renamed(node, overwriting_name(node), memory);
  }
}

}  // namespace bnfold
