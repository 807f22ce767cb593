#include "flatten.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/freeze_module.h>

#include <unordered_set>

#include "graph_walk.h"
#include "sentence.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The methods that no other method of the module calls: forward, and what @torch.jit.export made public.
std::vector<std::string> entry_points(const jit::Module& module) {
  std::unordered_set<std::string> called;
  for (const jit::Method& method : module.get_methods()) {
    const auto graph = method.graph();
    for_each_node(graph->block(), [&](const jit::Node* node) {
      if (node->kind() == jit::prim::CallMethod && node->input(0) == graph->inputs().at(0))
        called.insert(node->s(jit::attr::name));
    });
  }
  std::vector<std::string> names;
  for (const jit::Method& method : module.get_methods()) {
    const bool special = method.name().rfind("__", 0) == 0;
    if (!special && (method.name() == "forward" || called.count(method.name()) == 0)) names.push_back(method.name());
  }
  return names;
}

void require_known(const jit::Module& module, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (module.find_method(name)) continue;
    if (!module.hasattr(name)) throw Error(fmt::format("the module has no attribute '{}' to preserve", name));
    if (module.attr(name).isModule()) {
      throw Error(fmt::format("'{}' is a submodule, and only methods and values can be preserved; fold it by itself", name));
    }
  }
}

// A flattened method is called without them, which would change what the module computes.
void require_no_hooks(const jit::Module& module) {
  if (module.type()->getForwardHooks().empty() && module.type()->getForwardPreHooks().empty()) return;
  throw Error(
      "the module has forward hooks, which are not folded; call what they do in forward, or remove them before scripting");
}

}  // namespace

Program flatten(const jit::Module& module, const Options& options) {
  require_known(module, options.preserved_attributes);
  require_no_hooks(module);
  std::vector<std::string> preserved = options.preserved_attributes.empty() ? entry_points(module) : options.preserved_attributes;
  if (module.find_method("forward")) preserved.emplace_back("forward");
  Program program;
  try {
    program.module = jit::freeze_module(module, preserved, /*freezeInterfaces=*/true, /*preserveParameters=*/true);
  } catch (const c10::Error& error) {
    throw Error(fmt::format("TorchScript can't flatten this module: {}", first_sentence(error.what_without_backtrace())));
  }
  std::unordered_set<std::string> seen;
  for (const std::string& name : preserved) {
    if (!seen.insert(name).second) continue;
    if (const auto method = program.module.find_method(name)) {
      program.methods.push_back({name, jit::toGraphFunction(method->function()).graph()});
    } else {
      program.preserved_values.push_back(name);
    }
  }
  return program;
}

}  // namespace bnfold
