#include "module/assemble.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "bnfold/bnfold.h"
#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// An object of a C++ class that can't be copied is shared.
c10::IValue deep_copy(const c10::IValue& value) try { return value.deepcopy(); } catch (const c10::Error&) {
  return value;
}

// What a list, a dict or an object holds; nothing where an object of a C++ class is among it, which can't be looked into.
c10::IValue::HashAliasedIValues parts_of(const c10::IValue& value) try {
  c10::IValue::HashAliasedIValues parts;
  value.getSubValues(parts);
  return parts;
} catch (const c10::Error&) {
  return {};
}

class Assembler {
 public:
  Assembler(const Program& program, const ParameterStore& store) : program_(program), store_(store) {}

  jit::Module run() {
    for (const std::string& name : program_.preserved_values) kept_[""].insert(name);
    for (const auto& method : program_.methods) collect(*method.graph);
    name_added();
    jit::Module root = build("", program_.module);
    require_no_lost_overlap();
    for (const auto& method : program_.methods) add_method(root, method);
    return root;
  }

 private:
  using Names = std::set<std::string>;
  using Memory = std::unordered_map<const void*, std::string>;  // whose it is

  // A tensor that was added, under the name that it got.
  struct Addition {
    std::string name;
    at::Tensor tensor;
    bool is_buffer;
  };

  // An attribute that stays.
  struct Copied {
    std::string path;
    c10::IValue value;
    bool parameter;
  };

  void collect(const jit::Graph& graph) {
    require_no_submodule(graph.outputs(), "return");
    for_each_node(const_cast<jit::Graph&>(graph).block(), [this](jit::Node* node) {
      require_plain_use(node);
      if (node->kind() != jit::prim::GetAttr && node->kind() != jit::prim::SetAttr) return;
      const auto module = store_.module_path(node->input(0));
      if (!module) return;
      keep_path(*module);
      if (store_.added(node) != nullptr) {
        added_.emplace(store_.added(node)->number, std::make_pair(*module, node));
      } else if (node->outputs().empty() || !store_.module_path(node->output())) {
        kept_[*module].insert(node->s(jit::attr::name));
      }
    });
  }

  void require_plain_use(const jit::Node* node) const {
    const char* user = node->kind().toQualString();
    for (const jit::Block* block : node->blocks()) require_no_submodule(block->outputs(), user);
    if (node->kind() == jit::prim::fork) require_no_submodule(std::as_const(*node->g(jit::attr::Subgraph)).outputs(), user);
    if (node->kind() == jit::prim::GetAttr || node->kind() == jit::prim::fork) return;
    require_no_submodule(node->inputs().slice(node->kind() == jit::prim::SetAttr ? 1 : 0), user);
  }

  void require_no_submodule(at::ArrayRef<const jit::Value*> values, const char* user) const {
    for (const jit::Value* value : values) {
      if (!store_.module_path(value)) continue;
      throw Error(fmt::format("{} uses a submodule as a value, which can't be flattened; fold the submodule by itself", user));
    }
  }

  void keep_path(const std::string& path) {
    if (path.empty()) return;
    const size_t dot = path.rfind('.');
    const std::string parent = dot == std::string::npos ? "" : path.substr(0, dot);
    children_[parent].insert(path.substr(dot + 1));
    keep_path(parent);
  }

  void name_added() {
    for (const auto& entry : added_) {
      const auto& [module, node] = entry.second;
      const ParameterStore::Added& added = *store_.added(node);
      node->s_(jit::attr::name, place(module, added));
    }
  }

  std::string place(const std::string& module, const ParameterStore::Added& added) {
    std::vector<Addition>& additions = additions_[module];
    for (int64_t number = 0;; ++number) {
      const std::string name = number == 0 ? added.name : fmt::format("{}_{}", added.name, number);
      const auto same = std::find_if(additions.begin(), additions.end(), [&](const Addition& a) { return a.name == name; });
      if (same != additions.end() && same->is_buffer == added.is_buffer && same->tensor.equal(added.tensor)) return name;
      const bool taken = same != additions.end() || kept_[module].count(name) != 0 || children_[module].count(name) != 0 ||
                         (module.empty() && program_.module.find_method(name));
      if (taken) continue;
      additions.push_back({name, added.tensor, added.is_buffer});
      return name;
    }
  }

  jit::Module build(const std::string& path, const jit::Module& original) {
    jit::Module module(*original.type()->name(), original._ivalue()->compilation_unit(), /*shouldMangle=*/true);
    const std::string prefix = path.empty() ? "" : path + ".";
    for (size_t slot = 0; slot < original.type()->numAttributes(); ++slot) {
      const std::string& name = original.type()->getAttributeName(slot);
      if (children_[path].count(name) != 0) {
        module.register_module(name, build(prefix + name, original.attr(name).toModule()));
      } else if (const Addition* addition = find_addition(path, name)) {
        module.register_parameter(name, addition->tensor, addition->is_buffer);
      } else if (kept_[path].count(name) != 0) {
        copy_attribute(module, original, slot, prefix + name);
      }
    }
    for (const Addition& addition : additions_[path]) {
      if (!module.hasattr(addition.name)) module.register_parameter(addition.name, addition.tensor, addition.is_buffer);
    }
    if (!module.hasattr("training")) module.register_attribute("training", c10::BoolType::get(), false);
    types_[path] = module.type();
    return module;
  }

  const Addition* find_addition(const std::string& module, const std::string& name) {
    for (const Addition& addition : additions_[module]) {
      if (addition.name == name) return &addition;
    }
    return nullptr;
  }

  void copy_attribute(jit::Module& module, const jit::Module& original, size_t slot, const std::string& path) {
    const auto type = original.type();
    const c10::IValue value = original._ivalue()->getSlot(slot);
    copied_.push_back({path, value, type->is_parameter(slot)});
    module.register_attribute(type->getAttributeName(slot), type->getAttribute(slot), copied(value, type->is_parameter(slot)),
                              type->is_parameter(slot), type->is_buffer(slot));
  }

  // A parameter becomes a new tensor over the same storage: to() and half() replace the contents of a tensor, not of its storage. Buffers
  // become copies, over one storage where they were: one may be written where another is read.
  c10::IValue copied(const c10::IValue& value, bool parameter) {
    if (!value.isTensor()) return deep_copy(value);
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return value;
    at::Tensor& copy = tensors_[tensor.unsafeGetTensorImpl()];
    if (!copy.defined()) {
      copy = parameter ? tensor.detach() : copy_over_one_storage(tensor);
      copy.set_requires_grad(tensor.requires_grad());
    }
    return copy;
  }

  // What is written through one name would no longer be read through another one: parameters stay where they are, buffers and what lists
  // hold are copied. Who writes into what a list holds can't be told.
  void require_no_lost_overlap() const {
    Memory parameters;
    for (const Copied& one : copied_) {
      if (one.parameter) parameters.emplace(storage_of(one.value.toTensor()), one.path);
    }
    const Memory all = memory_of_module();
    for (const Copied& one : copied_) {
      if (!one.value.isTensor()) {
        for (const c10::IValue& part : parts_of(one.value)) require_elsewhere(one.path, part, all);
      } else if (!one.parameter && store_.is_written(one.value.toTensor())) {
        require_elsewhere(one.path, one.value, parameters);
      }
    }
  }

  Memory memory_of_module() const {
    Memory memory;
    for (const auto& parameter : program_.module.named_parameters()) memory.emplace(storage_of(parameter.value), parameter.name);
    for (const auto& buffer : program_.module.named_buffers()) memory.emplace(storage_of(buffer.value), buffer.name);
    return memory;
  }

  static void require_elsewhere(const std::string& path, const c10::IValue& value, const Memory& memory) {
    const void* storage = value.isTensor() ? storage_of(value.toTensor()) : nullptr;
    const auto found = storage == nullptr ? memory.end() : memory.find(storage);
    if (found == memory.end()) return;
    throw Error(fmt::format("{} and {} share memory that may be written, which a folded module can't keep; give each its own",
                            path, found->second));
  }

  at::Tensor copy_over_one_storage(const at::Tensor& tensor) {
    const bool plain = tensor.layout() == at::kStrided && tensor.has_storage() && !tensor.is_quantized() && !tensor.is_neg() &&
                       !tensor.is_conj();
    if (!plain) return tensor.detach().clone();
    at::Tensor& copy = storages_[tensor.storage().unsafeGetStorageImpl()];
    if (!copy.defined()) copy = at::empty({0}, tensor.options()).set_(tensor.storage()).clone();
    return at::empty({0}, tensor.options()).set_(copy.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
  }

  void add_method(jit::Module& root, const Program::Method& method) {
    method.graph->inputs().at(0)->setType(root.type());
    for_each_node(method.graph->block(), [this](jit::Node* node) { set_module_types(node); });
    const c10::FunctionSchema& schema = program_.module.get_method(method.name).function().getSchema();
    const auto self_type = program_.module.type();
    const auto renamed = schema.cloneWithRemappedTypes(
        [&](const c10::TypePtr& type) -> c10::TypePtr { return type == self_type ? c10::TypePtr(root.type()) : type; });
    const c10::QualifiedName name(*root.type()->name(), method.name);
    auto* function = root._ivalue()->compilation_unit()->create_function(name, method.graph);
    root.type()->addMethod(function);
    function->setSchema(renamed);
  }

  void set_module_types(jit::Node* node) {
    for (jit::Value* output : node->outputs()) {
      if (const auto path = store_.module_path(output)) output->setType(types_.at(*path));
    }
    if (node->kind() != jit::prim::fork) return;
    for (jit::Value* input : node->g(jit::attr::Subgraph)->inputs()) {
      if (const auto path = store_.module_path(input)) input->setType(types_.at(*path));
    }
  }

  const Program& program_;
  const ParameterStore& store_;
  std::map<std::string, Names> children_;                       // by module path: the submodules on the way to something kept
  std::map<std::string, Names> kept_;                           // by module path: the attributes that stay as they are
  std::map<std::string, std::vector<Addition>> additions_;      // by module path: the tensors that were added
  std::map<size_t, std::pair<std::string, jit::Node*>> added_;  // by number: module path and leaf
  std::map<std::string, c10::ClassTypePtr> types_;              // by module path: the new classes
  std::vector<Copied> copied_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> tensors_;
  std::unordered_map<const c10::StorageImpl*, at::Tensor> storages_;  // copies of those of buffers
};

}  // namespace

jit::Module assemble(const Program& program, const ParameterStore& store) {
  return Assembler(program, store).run();
}

}  // namespace bnfold
