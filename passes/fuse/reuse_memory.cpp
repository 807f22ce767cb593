#include "fuse/reuse_memory.h"

#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Their results have the size and the dtype of what they read.
bool is_activation(const std::string& name) {
  static const OperatorNames names = {"relu",      "relu6",       "hardtanh",   "sigmoid", "tanh", "silu",
                                      "hardswish", "hardsigmoid", "leaky_relu", "gelu",    "mish", "elu"};
  return names.count(name) != 0;
}

bool is_arithmetic(const std::string& name) {
  static const OperatorNames names = {"add", "sub", "mul", "div", "clamp_min", "clamp_max", "clamp"};
  return names.count(name) != 0;
}

// The name without the underscore of what works in place; empty for what does not.
std::string functional_name(const jit::Node* node) {
  std::string name = node->kind().is_aten() ? node->kind().toUnqualString() : "";
  if (name.empty() || name.back() != '_') return "";
  name.pop_back();
  return name;
}

// The operator that overwrites its first operand; empty where there is none.
std::string in_place_name(const jit::Node* node) {
  static const std::unordered_map<std::string, std::string> others = {{"maximum", "clamp_min_"}, {"minimum", "clamp_max_"}};
  if (!node->kind().is_aten()) return "";
  const std::string name = node->kind().toUnqualString();
  const auto found = others.find(name);
  if (found != others.end()) return found->second;
  return is_activation(name) || is_arithmetic(name) ? name + "_" : "";
}

// Gives no element that it reads twice, and may give it in the same memory.
bool rearranges(const jit::Node* node) {
  return is_one_of(node, {"permute", "transpose", "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "slice",
                          "select", "narrow"});
}

// Whether the value is memory that an operator surely made, through those that work in place or rearrange it as its only readers.
bool is_new(const jit::Value* value) {
  const jit::Node* node = value->node();
  const auto hands_on = [](const jit::Node* one) {
    return rearranges(one) || is_activation(functional_name(one)) || is_arithmetic(functional_name(one));
  };
  while (hands_on(node) && is_only_reader(node, node->input(0))) node = node->input(0)->node();
  return operator_of(node).storage == Storage::fresh;
}

// Whether no operand makes the result wider than the first one. A number doesn't, nor does a tensor without dimensions beside one that has some.
bool keeps_dtype(const jit::Node* node, const Facts& facts) {
  const jit::Value* first = node->input(0);
  const auto operands = node->inputs().slice(1);
  return std::all_of(operands.begin(), operands.end(), [&](const jit::Value* operand) {
    if (operand->type()->kind() != c10::TypeKind::TensorType || facts.have_one_dtype(first, operand)) return true;
    const auto tensor = constant_tensor(operand);
    const bool has_no_dimensions = tensor && tensor->dim() == 0 && !tensor->is_complex();
    return has_no_dimensions && facts.is_inexact(first) && facts.rank_of(first).value_or(0) > 0;
  });
}

// Of what, but for activations, a second operand may be broadcast, or make the result wider.
bool needs_sizes(const jit::Node* node) {
  const std::string name = functional_name(node).empty() ? node->kind().toUnqualString() : functional_name(node);
  const auto operands = node->inputs().slice(1);
  return !is_activation(name) && std::any_of(operands.begin(), operands.end(), [](const jit::Value* operand) {
    return operand->type()->kind() == c10::TypeKind::TensorType;
  });
}

bool exists(c10::Symbol kind) {
  return !jit::getAllOperatorsFor(kind).empty();
}

// Replaces every node for which `name_for` has another name, in the order of the graph.
template <typename NameFor>
void rename(jit::Graph& graph, Facts& facts, const NameFor& name_for) {
  std::vector<jit::Node*> nodes;
  for_each_node(graph.block(), [&nodes](jit::Node* node) { nodes.push_back(node); });
  for (jit::Node* node : nodes) {
    const std::string name = name_for(node);
    if (name.empty() || !exists(c10::Symbol::aten(name))) continue;
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
    const std::string name = functional_name(node);
    const bool activation = is_activation(name);
    if (!activation && (!is_arithmetic(name) || !keeps_dtype(node, facts))) return std::string();
    return is_new(node->input(0)) && is_only_reader(node, node->input(0)) ? name : std::string();
  });
}

void reuse_memory(jit::Graph& graph, Facts& facts) {
  rename(graph, facts, [&facts](const jit::Node* node) {
    const std::string name = in_place_name(node);
    if (name.empty() || operator_of(node).storage != Storage::fresh || !is_new(node->input(0)) ||
        !is_only_reader(node, node->input(0)))
      return std::string();
    if (!facts.have_one_dtype(node->input(0), node->output())) return std::string();
    return !needs_sizes(node) || facts.have_one_size(node->input(0), node->output()) ? name : std::string();
  });
}

}  // namespace bnfold
