#include "module/fixed_values.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <optional>
#include <set>

#include "graph/graph_walk.h"
#include "graph/module_places.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_plain(const c10::IValue& value) {
  return value.isNone() || value.isBool() || value.isInt() || value.isDouble() || value.isComplexDouble() || value.isString() ||
         value.isDevice();
}

bool is_plain_sequence(const c10::IValue& value) {
  if (value.isTuple()) {
    const auto& elements = value.toTupleRef().elements();
    return std::all_of(elements.begin(), elements.end(),
                       [](const c10::IValue& one) { return is_plain(one) || is_plain_sequence(one); });
  }
  return value.isIntList() || value.isDoubleList() || value.isBoolList();
}

bool can_be_written_to(c10::TypeKind kind) {
  return kind == c10::TypeKind::ListType || kind == c10::TypeKind::DictType;
}

class FixedValues {
 public:
  explicit FixedValues(const Program& program) {
    for (const std::string& name : program.preserved_values) changed_.emplace(program.module._ivalue().get(), name);
    for (const auto& method : program.methods) {
      places_.record(*method.graph, program.module);
      record_changes(method.graph);
    }
  }

  void replace(const jit::Graph& graph) const {
    std::vector<std::pair<jit::Node*, c10::IValue>> fixed;
    for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
      if (const auto value = value_of(node)) fixed.emplace_back(node, *value);
    });
    for (const auto& [node, value] : fixed) {
      const jit::WithInsertPoint before(node);
      jit::Value* constant = node->owningGraph()->insertConstant(value, node->sourceRange(), node->scope());
      node->output()->replaceAllUsesWith(constant);
      node->destroy();
    }
  }

 private:
  using Attribute = std::pair<const void*, std::string>;  // an object and a name in it: one object may have several paths

  std::optional<Attribute> attribute_of(const jit::Node* node) const {
    const ModulePlaces::Place* place = places_.find(node->input(0));
    if (place == nullptr) return std::nullopt;
    return Attribute{place->module._ivalue().get(), node->s(jit::attr::name)};
  }

  void record_changes(const std::shared_ptr<jit::Graph>& graph) {
    std::optional<jit::AliasDb> aliases;  // takes long, and most graphs have no attribute that could be written to
    for_each_node(graph->block(), [&](jit::Node* node) {
      if (node->kind() == jit::prim::SetAttr) {
        if (const auto attribute = attribute_of(node)) changed_.insert(*attribute);
      }
      if (node->kind() != jit::prim::GetAttr || !can_be_written_to(node->output()->type()->kind())) return;
      if (!aliases) aliases.emplace(graph);
      const bool forked = node->owningGraph() != graph.get();  // alias analysis does not look into forked graphs
      const auto attribute = attribute_of(node);
      if (attribute && (forked || aliases->hasWriters(node->output()))) changed_.insert(*attribute);
    });
  }

  // What an attribute always is, where it can be a constant, or whether a key is in a dict that never changes.
  std::optional<c10::IValue> value_of(const jit::Node* node) const {
    if (node->kind() == jit::prim::GetAttr) {
      const auto value = unchanged(node);
      if (value && (is_plain(*value) || is_plain_sequence(*value))) return value;
    }
    if (node->kind() == jit::aten::__contains__) {
      const jit::Node* dict = node->input(0)->node();
      const auto key = jit::toIValue(node->input(1));
      const auto value = dict->kind() == jit::prim::GetAttr && key ? unchanged(dict) : std::nullopt;
      if (value && value->isGenericDict()) return c10::IValue(value->toGenericDict().contains(*key));
    }
    return std::nullopt;
  }

  std::optional<c10::IValue> unchanged(const jit::Node* node) const {
    const auto attribute = attribute_of(node);
    if (!attribute || changed_.count(*attribute) != 0) return std::nullopt;
    return places_.find(node->input())->module.attr(node->s(jit::attr::name));
  }

  ModulePlaces places_;
  std::set<Attribute> changed_;
};

}  // namespace

void make_constants_of_fixed_values(Program& program) {
  const FixedValues values(program);
  for (const auto& method : program.methods) values.replace(*method.graph);
}

}  // namespace bnfold
