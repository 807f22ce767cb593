#include "module/fixed_values.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "graph/graph_walk.h"
#include "graph/module_places.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_plain(const c10::IValue& value) {
  return value.isNone() || value.isBool() || value.isInt() || value.isDouble() || value.isComplexDouble() || value.isString() ||
         value.isDevice() || value.isEnum();
}

bool is_plain_sequence(const c10::IValue& value) {
  if (value.isTuple()) {
    const auto& elements = value.toTupleRef().elements();
    return std::all_of(elements.begin(), elements.end(),
                       [](const c10::IValue& one) { return is_plain(one) || is_plain_sequence(one); });
  }
  return value.isIntList() || value.isDoubleList() || value.isBoolList();
}

bool is_container(const c10::IValue& value) {
  return value.isList() || value.isGenericDict();
}

bool is_container(const c10::Type& type) {
  return type.kind() == c10::TypeKind::ListType || type.kind() == c10::TypeKind::DictType;
}

// "A list of numbers", "a dict of tensors".
using ContainerKind = std::pair<c10::TypeKind, c10::TypeKind>;

ContainerKind kind_of(const c10::Type& container) {
  return {container.kind(), container.containedTypes().back()->kind()};
}

// Whether an operator that tells makes the container that `value` is.
bool is_made_in_graph(const jit::Value* value) {
  const jit::Node* node = value->node();
  if (node->kind() == jit::prim::ListConstruct || node->kind() == jit::prim::DictConstruct) return true;
  const c10::FunctionSchema* schema = node->maybeSchema();
  return schema != nullptr && schema->returns().size() == node->outputs().size() &&
         schema->returns()[value->offset()].alias_info() == nullptr;
}

const jit::Value* without_casts(const jit::Value* value) {
  while (value->node()->kind() == jit::prim::unchecked_cast || value->node()->kind() == jit::prim::unchecked_unwrap_optional) {
    value = value->node()->input();
  }
  return value;
}

// The lists and dicts that `node` may write into: those that its schema tells, and all where it has none.
std::vector<const jit::Value*> written_containers(const jit::Node* node) {
  std::vector<const jit::Value*> written;
  const auto inputs = node->inputs();
  if (std::none_of(inputs.begin(), inputs.end(), [](const jit::Value* input) { return is_container(*input->type()); }))
    return written;
  const c10::FunctionSchema* schema = node->maybeSchema();
  const bool calls =
      node->kind() == jit::prim::PythonOp || node->kind() == jit::prim::CallMethod || node->kind() == jit::prim::CallFunction;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    const bool told = schema != nullptr && i < schema->arguments().size();
    const c10::AliasInfo* argument = told ? schema->arguments()[i].alias_info() : nullptr;
    const bool writes = argument != nullptr ? argument->isWrite() : schema == nullptr && calls;
    if (writes && is_container(*node->input(i)->type())) written.push_back(without_casts(node->input(i)));
  }
  return written;
}

// Whether both are one tensor. Those of a file are two that share their memory.
bool are_one(const at::Tensor& one, const at::Tensor& other) {
  if (one.is_same(other)) return true;
  const bool strided = one.layout() == at::kStrided && other.layout() == at::kStrided && one.numel() > 0 && !one.is_meta();
  return strided && one.device() == other.device() && one.scalar_type() == other.scalar_type() && one.sizes() == other.sizes() &&
         one.strides() == other.strides() && one.data_ptr() == other.data_ptr();
}

class FixedValues {
 public:
  explicit FixedValues(const Program& program) {
    for (const std::string& name : program.preserved_values) {
      assigned_.emplace(program.module._ivalue().get(), name);
      add_written(program.module.attr(name));
    }
    for (const auto& method : program.methods) places_.record(*method.graph, program.module);
    for (const auto& method : program.methods) record_assignments(*method.graph);
    for (const auto& method : program.methods) record_writes(*method.graph);
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
    for (const auto& [node, names] : lists_of_attributes(graph)) read_each(node, names);
  }

 private:
  // The lists of tensors that are attributes of the same module too, as `_flat_weights` of a recurrent layer holds its parameters, with their
  // names.
  std::vector<std::pair<jit::Node*, std::vector<std::string>>> lists_of_attributes(const jit::Graph& graph) const {
    std::vector<std::pair<jit::Node*, std::vector<std::string>>> lists;
    for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
      if (node->kind() != jit::prim::GetAttr) return;
      const auto value = unchanged(node);
      if (!value || !value->isTensorList()) return;
      const jit::Module& module = places_.find(node->input())->module;
      std::vector<std::string> names;
      for (const at::Tensor& tensor : value->toTensorVector()) {
        for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
          const bool is_assigned = assigned_.count({module._ivalue().get(), parameter.name}) != 0;
          if (!are_one(parameter.value, tensor) || is_assigned) continue;
          names.push_back(parameter.name);
          break;
        }
      }
      if (!names.empty() && names.size() == value->toTensorVector().size()) lists.emplace_back(node, names);
    });
    return lists;
  }

  // Makes the list of the attributes, each read by its name.
  static void read_each(jit::Node* node, const std::vector<std::string>& names) {
    jit::Graph* graph = node->owningGraph();
    const jit::WithInsertPoint before(node);
    std::vector<jit::Value*> values;
    values.reserve(names.size());
    for (const std::string& name : names) values.push_back(graph->insertGetAttr(node->input(), name));
    jit::Node* list = graph->insertNode(graph->createList(c10::TensorType::get(), values));
    list->copyMetadata(node);
    node->output()->replaceAllUsesWith(list->output());
    node->destroy();
  }

  using Attribute = std::pair<const void*, std::string>;  // an object and a name in it: one object may have several paths

  std::optional<Attribute> attribute_of(const jit::Node* node) const {
    const ModulePlaces::Place* place = places_.find(node->input(0));
    if (place == nullptr) return std::nullopt;
    return Attribute{place->module._ivalue().get(), node->s(jit::attr::name)};
  }

  void record_assignments(const jit::Graph& graph) {
    for_each_node(const_cast<jit::Graph&>(graph).block(), [&](const jit::Node* node) {
      if (node->kind() != jit::prim::SetAttr) return;
      if (const auto attribute = attribute_of(node)) assigned_.insert(*attribute);
    });
  }

  // Two attributes may hold one list, so what is written is the list, not the attribute.
  void record_writes(const jit::Graph& graph) {
    for_each_node(const_cast<jit::Graph&>(graph).block(), [&](const jit::Node* node) {
      for (const jit::Value* container : written_containers(node)) {
        const jit::Node* origin = container->node();
        const auto value = origin->kind() == jit::prim::GetAttr ? stored(origin) : std::nullopt;
        if (value) {
          add_written(*value);
        } else if (!is_made_in_graph(container)) {
          written_kinds_.insert(kind_of(*container->type()));
        }
      }
    });
  }

  void add_written(const c10::IValue& value) {
    if (value.isTuple()) {
      for (const c10::IValue& element : value.toTupleRef().elements()) add_written(element);
    }
    if (is_container(value)) written_.push_back(value);
  }

  bool may_be_written(const c10::IValue& value) const {
    if (value.isTuple()) {
      const auto& elements = value.toTupleRef().elements();
      return std::any_of(elements.begin(), elements.end(), [this](const c10::IValue& one) { return may_be_written(one); });
    }
    if (!is_container(value)) return false;
    return written_kinds_.count(kind_of(*value.type())) != 0 ||
           std::any_of(written_.begin(), written_.end(), [&value](const c10::IValue& one) { return one.is(value); });
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
    auto value = stored(node);
    if (!value || may_be_written(*value)) return std::nullopt;
    return value;
  }

  // What an attribute of a module holds where nothing is assigned to it.
  std::optional<c10::IValue> stored(const jit::Node* node) const {
    const auto attribute = attribute_of(node);
    if (!attribute || assigned_.count(*attribute) != 0) return std::nullopt;
    return places_.find(node->input())->module.attr(node->s(jit::attr::name));
  }

  ModulePlaces places_;
  std::set<Attribute> assigned_;           // or preserved, so that the user may
  std::vector<c10::IValue> written_;       // lists and dicts
  std::set<ContainerKind> written_kinds_;  // of what is written and comes from nobody knows where
};

}  // namespace

void make_constants_of_fixed_values(Program& program) {
  const FixedValues values(program);
  for (const auto& method : program.methods) values.replace(*method.graph);
}

}  // namespace bnfold
