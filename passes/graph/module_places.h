// Which submodule each module-typed value of a flattened program is.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>

namespace bnfold {

class ModulePlaces {
 public:
  struct Place {
    std::string path;  // dotted, "" for the root
    torch::jit::Module module;
  };

  // Takes note of every value of `graph` that is reached from its first input, `root`, by reading attributes, in inner blocks and
  // forked graphs too.
  void record(const torch::jit::Graph& graph, const torch::jit::Module& root);

  // The submodule that `value` is, null where it is no module or its path is not known.
  const Place* find(const torch::jit::Value* value) const;

 private:
  void record(const torch::jit::Block* block);
  void record_fork(const torch::jit::Node* fork);
  std::optional<torch::jit::Module> submodule(const torch::jit::Module& module, const std::string& name);

  std::unordered_map<const torch::jit::Value*, Place> places_;
  // A module looks for an attribute from its first to its last, which takes long where it has thousands of submodules.
  using Slots = std::unordered_map<std::string, size_t>;
  std::unordered_map<const c10::ClassType*, Slots> submodule_slots_;
};

// "layer1.0" and "conv" make "layer1.0.conv".
std::string joined(const std::string& module_path, const std::string& name);

}  // namespace bnfold
