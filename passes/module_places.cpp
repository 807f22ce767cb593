#include "module_places.h"

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
  const auto found = places_.find(value);
  return found == places_.end() ? nullptr : &found->second;
}

void ModulePlaces::record(const jit::Block* block) {
  for (jit::Node* node : const_cast<jit::Block*>(block)->nodes()) {
    if (node->kind() == jit::prim::GetAttr) {
      const Place* parent = find(node->input());
      const std::string& name = node->s(jit::attr::name);
      // What a rule added is no attribute of the module yet.
      if (parent != nullptr && parent->module.hasattr(name) && parent->module.attr(name).isModule()) {
        Place place{joined(parent->path, name), parent->module.attr(name).toModule()};
        places_.insert_or_assign(node->output(), std::move(place));
      }
    }
    for (const jit::Block* inner : node->blocks()) record(inner);
    if (node->kind() == jit::prim::fork) record_fork(node);
  }
}

void ModulePlaces::record_fork(const jit::Node* fork) {
  const auto graph = fork->g(jit::attr::Subgraph);
  for (size_t i = 0; i < fork->inputs().size(); ++i) {
    if (const Place* place = find(fork->input(i))) places_.insert_or_assign(graph->inputs().at(i), Place(*place));
  }
  record(graph->block());
}

}  // namespace bnfold
