#include "module/assemble.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bnfold/bnfold.h"
#include "graph/graph_walk.h"
#include "module/value_copies.h"
#include "module/written_elements.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// What a list, a dict or an object holds; nothing where an object of a C++ class is among it, which can't be looked into.
c10::IValue::HashAliasedIValues parts_of(const c10::IValue& value) try {
  c10::IValue::HashAliasedIValues parts;
  value.getSubValues(parts);
  return parts;
} catch (const c10::Error&) {
  return {};
}

// The classes of a result, and what is frozen of it, are gone with it: in the unit of the module that came in they would stay as long as that, in
// Python for ever. Its code may call methods of classes there.
struct OwnUnit {
  std::shared_ptr<jit::CompilationUnit> original;
  jit::CompilationUnit unit;
};

std::shared_ptr<jit::CompilationUnit> unit_beside(std::shared_ptr<jit::CompilationUnit> original) {
  const auto own = std::make_shared<OwnUnit>();
  own->original = std::move(original);
  return {own, &own->unit};
}

class Assembler {
 public:
  Assembler(const Program& program, const ParameterStore& store)
      : program_(program), store_(store), unit_(unit_beside(program.module._ivalue()->compilation_unit())) {}

  jit::Module run() {
    for (const std::string& name : program_.preserved_values) kept_[""].insert(name);
    for (const auto& method : program_.methods) collect(*method.graph);
    name_added();
    find_modules("", program_.module);
    tie_additions();
    keep_names_of_elements();
    unite("");
    require_one_module_for_what_is_assigned();
    share_parameters();
    jit::Module root = build("", program_.module);
    for (const auto& [path, built_under] : built_under_) types_[path] = built_.at(built_under).type();
    for (const auto& method : program_.methods) add_method(root, method);
    return root;
  }

 private:
  using Names = std::set<std::string>;

  // A tensor that a list, a dict or an object holds, and the path of that.
  struct Element {
    std::string path;
    at::Tensor tensor;
    bool preserved;
  };

  // A tensor that was added, under the name that it got.
  struct Addition {
    std::string name;
    at::Tensor tensor;
    bool is_buffer;
  };

  void collect(const jit::Graph& graph) {
    require_no_submodule(graph.outputs(), "return");
    for_each_node(const_cast<jit::Graph&>(graph).block(), [this](jit::Node* node) {
      require_plain_use(node);
      if (node->kind() != jit::prim::GetAttr && node->kind() != jit::prim::SetAttr) return;
      const auto module = store_.module_path(node->input(0));
      if (!module) return;
      keep_path(*module);
      if (node->kind() == jit::prim::SetAttr) assigned_.insert(*module);
      if (store_.added(node) != nullptr) {
        added_.emplace(store_.added(node)->number, std::make_pair(*module, node));
      } else if (node->outputs().empty() || !store_.module_path(node->output())) {
        kept_[*module].insert(node->s(jit::attr::name));
      }
    });
  }

  void require_plain_use(const jit::Node* node) const {
    if (node->kind() == jit::prim::PythonOp) require_no_method_of_python(static_cast<const jit::PythonOp&>(*node));
    const char* user = node->kind().toQualString();
    for (const jit::Block* block : node->blocks()) require_no_submodule(block->outputs(), user);
    if (node->kind() == jit::prim::fork) require_no_submodule(std::as_const(*node->g(jit::attr::Subgraph)).outputs(), user);
    if (node->kind() == jit::prim::GetAttr || node->kind() == jit::prim::fork) return;
    require_no_submodule(node->inputs().slice(node->kind() == jit::prim::SetAttr ? 1 : 0), user);
  }

  void require_no_method_of_python(const jit::PythonOp& call) const {
    const auto inputs = call.inputs();
    if (std::none_of(inputs.begin(), inputs.end(), [this](const jit::Value* value) { return store_.module_path(value); })) return;
    throw Error(
        fmt::format("the module calls {}, which @torch.jit.ignore left to Python, where it can't be folded; leave the call out "
                    "of what is folded, or trace the module",
                    call.name()));
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

  void find_modules(const std::string& path, const jit::Module& original) {
    modules_.insert_or_assign(path, original);
    const Names& children = children_[path];
    for (size_t slot = 0; slot < original.type()->numAttributes() && !children.empty(); ++slot) {
      const std::string& name = original.type()->getAttributeName(slot);
      if (children.count(name) != 0) find_modules(joined(path, name), original._ivalue()->getSlot(slot).toModule());
    }
  }

  // Scripting makes two submodules of one that has two names, over the same tensors; what was folded into both alike is one tensor as well.
  void tie_additions() {
    std::map<std::pair<const void*, c10::ClassTypePtr>, std::vector<std::string>> tied;  // by memory and class: module paths
    for (auto& [path, additions] : additions_) {
      const jit::Module& module = modules_.at(path);
      std::vector<std::string>& others = tied[{memory_of(module), module.type()}];
      for (const std::string& other : others) {
        if (!lie_in_one_place(module, modules_.at(other))) continue;
        for (Addition& addition : additions) tie(addition, other);
        break;
      }
      others.push_back(path);
    }
  }

  void tie(Addition& addition, const std::string& other) const {
    const Addition* same = find_addition(other, addition.name);
    if (same != nullptr && same->is_buffer == addition.is_buffer && same->tensor.equal(addition.tensor))
      addition.tensor = same->tensor;
  }

  // That of the first tensor of a module.
  static const void* memory_of(const jit::Module& module) {
    const void* memory = nullptr;
    for_each_tensor("", module, [&memory](const std::string&, const std::string&, const at::Tensor& tensor) {
      if (memory == nullptr) memory = storage_of(tensor);
    });
    return memory;
  }

  // Of two modules of one class: whether all tensors of the one are those of the other.
  static bool lie_in_one_place(const jit::Module& one, const jit::Module& other) {
    for (size_t slot = 0; slot < one.type()->numAttributes(); ++slot) {
      const c10::IValue& mine = one._ivalue()->getSlot(slot);
      const c10::IValue& theirs = other._ivalue()->getSlot(slot);
      if (mine.isModule() && (mine.type() != theirs.type() || !lie_in_one_place(mine.toModule(), theirs.toModule())))
        return false;
      if (mine.isTensor() != theirs.isTensor() || (mine.isTensor() && !lie_in_one_place(mine.toTensor(), theirs.toTensor())))
        return false;
    }
    return true;
  }

  // Lists, dicts and objects may hold parameters and buffers, as those of recurrent layers do. What is held stays under its own name too, where
  // no tensor was added under that: only what has a name is moved to another device.
  void keep_names_of_elements() {
    std::vector<Element> elements;
    for (const auto& [path, names] : kept_) add_elements(path, names, elements);
    if (elements.empty()) return;
    const bool written = may_write_elements(program_, store_);
    for_each_tensor("", program_.module, [&](const std::string& path, const std::string& name, const at::Tensor& tensor) {
      for (const Element& element : elements) {
        if (storage_of(tensor) == nullptr || storage_of(tensor) != storage_of(element.tensor)) continue;
        if (written || element.preserved) refuse_shared(element.path, joined(path, name));
        if (find_addition(path, name) != nullptr || !lie_in_one_place(tensor, element.tensor)) continue;
        copies_.take_for(element.tensor, tensor);
        keep_path(path);
        kept_[path].insert(name);
      }
    });
    find_modules("", program_.module);
  }

  void add_elements(const std::string& path, const Names& names, std::vector<Element>& elements) const {
    for (const std::string& name : names) {
      const c10::IValue value = modules_.at(path).attr(name);
      if (value.isTensor()) continue;
      const bool preserved = path.empty() && is_preserved(name);
      for (const c10::IValue& part : parts_of(value)) {
        if (part.isTensor() && part.toTensor().defined()) elements.push_back({joined(path, name), part.toTensor(), preserved});
      }
    }
  }

  // The fold takes what such an element shares its memory with for a constant.
  [[noreturn]] static void refuse_shared(const std::string& path, const std::string& other) {
    throw Error(fmt::format("{} and {} share memory that may be written, which a folded module can't keep; give each its own",
                            path, other));
  }

  bool is_preserved(const std::string& name) const {
    const auto& preserved = program_.preserved_values;
    return std::find(preserved.begin(), preserved.end(), name) != preserved.end();
  }

  template <typename Visit>
  static void for_each_tensor(const std::string& path, const jit::Module& module, const Visit& visit) {
    const auto type = module.type();
    for (size_t slot = 0; slot < type->numAttributes(); ++slot) {
      const c10::IValue& value = module._ivalue()->getSlot(slot);
      const std::string& name = type->getAttributeName(slot);
      if (value.isModule()) for_each_tensor(joined(path, name), value.toModule(), visit);
      if (value.isTensor() && value.toTensor().defined()) visit(path, name, value.toTensor());
    }
  }

  static bool lie_in_one_place(const at::Tensor& one, const at::Tensor& other) {
    if (!one.defined() || !other.defined()) return one.defined() == other.defined();
    return storage_of(one) == storage_of(other) && one.scalar_type() == other.scalar_type() &&
           one.storage_offset() == other.storage_offset() && one.sizes() == other.sizes() && one.strides() == other.strides();
  }

  // A submodule that has several names is built once where the same becomes of it under each, and else once for each that differs.
  void unite(const std::string& path) {
    for (const std::string& name : children_[path]) unite(joined(path, name));
    std::vector<std::string>& built_under = names_of_[modules_.at(path)._ivalue().get()];
    for (const std::string& other : built_under) {
      if (!agree(path, other)) continue;
      kept_[other].insert(kept_[path].begin(), kept_[path].end());
      for (const std::string& name : children_[path]) {
        built_under_.emplace(joined(other, name), built_under_.at(joined(path, name)));
        children_[other].insert(name);
      }
      built_under_[path] = other;
      return;
    }
    built_under.push_back(path);
    built_under_[path] = path;
  }

  bool agree(const std::string& path, const std::string& other) {
    const std::vector<Addition>& additions = additions_[path];
    if (additions.size() != additions_[other].size()) return false;
    for (const Addition& addition : additions) {
      const Addition* same = find_addition(other, addition.name);
      if (same == nullptr || same->is_buffer != addition.is_buffer || !same->tensor.equal(addition.tensor)) return false;
    }
    const Names& children = children_[path];
    return std::all_of(children.begin(), children.end(), [&](const std::string& name) {
      const auto found = built_under_.find(joined(other, name));
      return found == built_under_.end() || found->second == built_under_.at(joined(path, name));
    });
  }

  // What is assigned under one name would not be seen under the other.
  void require_one_module_for_what_is_assigned() const {
    for (const auto& [object, names] : names_of_) {
      const auto is_assigned = [&](const auto& entry) { return assigned_.count(entry.first) != 0 && is_name_of(entry, names); };
      if (names.size() == 1 || std::none_of(built_under_.begin(), built_under_.end(), is_assigned)) continue;
      throw Error(
          fmt::format("'{}' and '{}' are one submodule, and the module assigns its attributes, which can't be folded; use it "
                      "under one name",
                      names.front(), names.back()));
    }
  }

  static bool is_name_of(const std::pair<const std::string, std::string>& entry, const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), entry.second) != names.end();
  }

  // A parameter becomes a new tensor over the same memory: to() and half() replace the contents of a tensor, not of its memory. What is
  // written becomes a copy, and so do buffers.
  void share_parameters() {
    for (const auto& [path, names] : kept_) {
      const jit::Module& module = modules_.at(path);
      for (const std::string& name : names) {
        const bool parameter = module.type()->is_parameter(module.type()->getAttributeSlot(name));
        const c10::IValue value = parameter ? module.attr(name) : c10::IValue();
        if (value.isTensor() && !store_.is_written(value.toTensor())) copies_.share_memory_of(value.toTensor());
      }
    }
  }

  jit::Module build(const std::string& path, const jit::Module& original) {
    const auto built = built_.find(path);
    if (built != built_.end()) return built->second;
    if (needs_state_of_its_own(path, original)) {
      return built_.emplace(path, copies_.copy(original._ivalue()).toModule()).first->second;
    }
    jit::Module module(*original.type()->name(), unit_, /*shouldMangle=*/true);
    for (size_t slot = 0; slot < original.type()->numAttributes(); ++slot) {
      const std::string& name = original.type()->getAttributeName(slot);
      if (children_[path].count(name) != 0) {
        module.register_module(name, build(built_under_.at(joined(path, name)), original._ivalue()->getSlot(slot).toModule()));
      } else if (const Addition* addition = find_addition(path, name)) {
        module.register_parameter(name, addition->tensor, addition->is_buffer);
      } else if (kept_[path].count(name) != 0) {
        copy_attribute(module, original, slot);
      }
    }
    for (const Addition& addition : additions_[path]) {
      if (!module.hasattr(addition.name)) module.register_parameter(addition.name, addition.tensor, addition.is_buffer);
    }
    if (!module.hasattr("training")) module.register_attribute("training", c10::BoolType::get(), false);
    built_.emplace(path, module);
    return module;
  }

  // A weight that was packed for the kernels of this machine is saved and loaded by methods of its module, which stays as it is with them.
  bool needs_state_of_its_own(const std::string& path, const jit::Module& original) {
    const Names& names = kept_[path];
    const bool packed = std::any_of(names.begin(), names.end(), [&original](const std::string& name) {
      const c10::IValue value = original.attr(name);
      return value.isTensor() && value.toTensor().is_mkldnn();
    });
    if (!packed || !original.find_method("__getstate__")) return false;
    if (path.empty() || !children_[path].empty() || !additions_[path].empty()) {
      throw Error(
          fmt::format("'{}' holds a weight that was packed for this machine; fold the module before it is optimized", path));
    }
    return true;
  }

  const Addition* find_addition(const std::string& module, const std::string& name) const {
    const auto additions = additions_.find(module);
    if (additions == additions_.end()) return nullptr;
    for (const Addition& addition : additions->second) {
      if (addition.name == name) return &addition;
    }
    return nullptr;
  }

  void copy_attribute(jit::Module& module, const jit::Module& original, size_t slot) {
    const auto type = original.type();
    module.register_attribute(type->getAttributeName(slot), type->getAttribute(slot),
                              copies_.copy(original._ivalue()->getSlot(slot)), type->is_parameter(slot), type->is_buffer(slot));
  }

  void add_method(jit::Module& root, const Program::Method& method) {
    method.graph->inputs().at(0)->setType(root.type());
    for_each_node(method.graph->block(), [this](jit::Node* node) { set_module_types(node); });
    const c10::FunctionSchema& schema = program_.module.get_method(method.name).function().getSchema();
    const auto self_type = program_.module.type();
    const auto renamed = schema.cloneWithRemappedTypes(
        [&](const c10::TypePtr& type) -> c10::TypePtr { return type == self_type ? c10::TypePtr(root.type()) : type; });
    const c10::QualifiedName name(*root.type()->name(), method.name);
    auto* function = unit_->create_function(name, method.graph);
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
  std::shared_ptr<jit::CompilationUnit> unit_;
  std::map<std::string, Names> children_;                       // by module path: the submodules on the way to something kept
  std::map<std::string, Names> kept_;                           // by module path: the attributes that stay as they are
  std::map<std::string, std::vector<Addition>> additions_;      // by module path: the tensors that were added
  std::map<size_t, std::pair<std::string, jit::Node*>> added_;  // by number: module path and leaf
  std::map<std::string, c10::ClassTypePtr> types_;              // by module path: the new classes
  std::map<std::string, jit::Module> modules_;                  // by module path: those that came in
  Names assigned_;                                              // the paths of modules with attributes that the graphs assign
  std::unordered_map<const void*, std::vector<std::string>> names_of_;  // by original module: the paths under which it is built
  std::map<std::string, std::string> built_under_;                      // by module path: the one of these
  std::map<std::string, jit::Module> built_;                            // by the path that it is built under
  ValueCopies copies_;
};

}  // namespace

jit::Module assemble(const Program& program, const ParameterStore& store) {
  return Assembler(program, store).run();
}

}  // namespace bnfold
