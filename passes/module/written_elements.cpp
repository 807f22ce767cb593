#include "module/written_elements.h"

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

class ElementWrites {
 public:
  ElementWrites(const jit::Graph& graph, const ParameterStore& store) : graph_(graph), store_(store) {}

  bool found() const {
    bool found = false;
    for_each_node(const_cast<jit::Graph&>(graph_).block(), [&](const jit::Node* node) { found |= writes_element(node); });
    return found;
  }

 private:
  bool writes_element(const jit::Node* node) const {
    const c10::FunctionSchema* schema = node->maybeSchema();
    if (schema == nullptr || schema->is_vararg()) return false;
    for (size_t i = 0; i < schema->arguments().size(); ++i) {
      const c10::AliasInfo* argument = schema->arguments()[i].alias_info();
      if (argument == nullptr) continue;
      const auto& contained = argument->containedTypes();
      if (std::any_of(contained.begin(), contained.end(), [](const c10::AliasInfo& one) { return one.isWrite(); })) return true;
      const bool tensor = node->input(i)->type()->isSubtypeOf(*c10::OptionalType::ofTensor());
      if (argument->isWrite() && tensor && may_be_element(node->input(i))) return true;
    }
    return false;
  }

  // Loops and tasks are not followed: what they carry may be anything.
  bool may_be_element(const jit::Value* value) const {
    const jit::Node* node = value->node();
    if (node->kind() == jit::prim::Param) return node->owningBlock() != graph_.block();
    if (node->kind() == jit::prim::Constant) return false;
    if (node->kind() == jit::prim::GetAttr) return !store_.module_path(node->input());
    if (node->kind() == jit::prim::If) {
      const auto branches = node->blocks();
      return std::any_of(branches.begin(), branches.end(),
                         [&](const jit::Block* branch) { return may_be_element(branch->outputs().at(value->offset())); });
    }
    const c10::FunctionSchema* schema = node->maybeSchema();
    return schema == nullptr || schema->returns().size() != node->outputs().size() || is_shared(*value, *schema);
  }

  // Whether an operator hands on what may be an element.
  bool is_shared(const jit::Value& output, const c10::FunctionSchema& schema) const {
    const c10::AliasInfo* shared = schema.returns()[output.offset()].alias_info();
    if (shared == nullptr) return false;
    if (shared->isWildcardBefore() || shared->isWildcardAfter()) return true;
    for (size_t i = 0; i < schema.arguments().size(); ++i) {
      const c10::AliasInfo* argument = schema.arguments()[i].alias_info();
      const bool same = argument != nullptr && argument->beforeSets() == shared->beforeSets();
      if (same && may_be_element(output.node()->input(i))) return true;
    }
    return false;
  }

  const jit::Graph& graph_;
  const ParameterStore& store_;
};

}  // namespace

bool may_write_elements(const Program& program, const ParameterStore& store) {
  return std::any_of(program.methods.begin(), program.methods.end(),
                     [&store](const Program::Method& method) { return ElementWrites(*method.graph, store).found(); });
}

}  // namespace bnfold
