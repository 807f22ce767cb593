#include "graph/module_places.h"

namespace bnfold {

namespace jit = torch::jit;

std::string joined(const std::string& module_path, const std::string& name) {
  return module_path.empty() ? name : module_path + "." + name;
}

void ModulePlaces::record(const jit::Graph& graph, const jit::Module& root) {
  places_[const_cast<jit::Graph&>(graph).inputs().at(0)] = {"", root};
  record(const_cast<jit::Graph&>(graph).block());
}

const ModulePlaces::Place* ModulePlaces::find(const jit::Value* value) const {
  // A value that was made later may have the address of one that is gone.
  const c10::TypeKind kind = value->type()->kind();
  if (kind != c10::TypeKind::ClassType && kind != c10::TypeKind::InterfaceType) return nullptr;
  const auto found = places_.find(value);
  return found == places_.end() ? nullptr : &found->second;
}

void ModulePlaces::record(const jit::Block* block) {
  for (jit::Node* node : const_cast<jit::Block*>(block)->nodes()) {
    const Place* parent = node->kind() == jit::prim::GetAttr ? find(node->input()) : nullptr;
    if (parent != nullptr) {
      const std::string& name = node->s(jit::attr::name);
      if (auto module = submodule(parent->module, name)) {
        Place place{joined(parent->path, name), std::move(*module)};
        places_.insert_or_assign(node->output(), std::move(place));
      }
    }
    for (const jit::Block* inner : node->blocks()) record(inner);
    if (node->kind() == jit::prim::fork) record_fork(node);
  }
}

// What a rule added is no attribute of the module yet.
std::optional<jit::Module> ModulePlaces::submodule(const jit::Module& module, const std::string& name) {
  const auto type = module.type();
  const auto [entry, is_new] = submodule_slots_.try_emplace(type.get());
  Slots& slots = entry->second;
  for (size_t slot = 0; is_new && slot < type->numAttributes(); ++slot) {
    if (type->getAttribute(slot)->is_module()) slots.emplace(type->getAttributeName(slot), slot);
  }
  const auto found = slots.find(name);
  if (found == slots.end()) return std::nullopt;
  return module._ivalue()->getSlot(found->second).toModule();
}

void ModulePlaces::record_fork(const jit::Node* fork) {
  const auto& graph = fork->g(jit::attr::Subgraph);
  for (size_t i = 0; i < fork->inputs().size(); ++i) {
    if (const Place* place = find(fork->input(i))) places_.insert_or_assign(graph->inputs().at(i), Place(*place));
  }
  record(graph->block());
}

}  // namespace bnfold
