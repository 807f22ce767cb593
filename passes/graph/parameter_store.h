// The one place that knows where the static tensors of a flattened module live and how to replace them.
//
// A weight is the output of a chain of attribute reads that starts at self (a module that keeps its parameters) or of a constant (a
// frozen one). Rules read through the store and never touch a module or a graph. Nothing here overwrites a tensor: `add` makes a
// new leaf beside an old one, and assemble.h gives it the old one's name where nobody reads the old one any more.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/memory.h"
#include "graph/module_places.h"
#include "graph/program.h"

namespace bnfold {

class ParameterStore {
 public:
  explicit ParameterStore(const Program& program);

  // Of a frozen graph, whose static tensors are constants; what it reads from a module counts as computed.
  explicit ParameterStore(const std::shared_ptr<torch::jit::Graph>& frozen) { record(frozen); }

  // The tensor that `value` always is: undefined where it is None, nothing where it is not known before the module runs (computed,
  // assigned, written in place, or aliased by something that is).
  std::optional<at::Tensor> read(const torch::jit::Value* value) const;

  // Whether something that the graphs do writes into the memory of `tensor`.
  bool is_written(const at::Tensor& tensor) const;

  // Who shares memory with whom in the graph that was read last.
  const Memory& memory() const { return *memory_; }
  Memory& memory() { return *memory_; }

  // Reads the memory of `graph` anew, after a change that it was not told of.
  void read_memory(const torch::jit::Graph& graph);

  // The dotted path of a static value, "layer1.0.conv1.weight"; for a constant, the name that freezing gave it.
  std::string path(const torch::jit::Value* value) const;

  // The dotted path of the module that `value` belongs to, "layer1.0.conv1"; of the value itself where it belongs to the root. What
  // torch.nn.utils.parametrize keeps in "conv1.parametrizations.weight" belongs to conv1.
  std::string layer(const torch::jit::Value* value) const;

  // A new static value with `tensor`, which nobody else may hold, trainable as `beside` is. It stands right behind the static value
  // `beside` and belongs to the same module, under the name `name` as long as that name is free once everything has been added.
  torch::jit::Value* add(torch::jit::Value* beside, const std::string& name, const at::Tensor& tensor);

  // A new buffer, beside the layer that the static value `beside` belongs to, in the module that holds that layer: a buffer "bound" beside
  // "block.norm.weight" is "block.norm_bound".
  torch::jit::Value* add_buffer(torch::jit::Value* beside, const std::string& name, const at::Tensor& tensor);

  // A tensor that was added, and the name it would like.
  struct Added {
    std::string name;
    at::Tensor tensor;
    bool is_buffer;
    size_t number;  // how many were added before
  };

  // What `node` reads where it is a leaf that was added, null otherwise.
  const Added* added(const torch::jit::Node* node) const;

  // Whether some weight lies in memory in channels_last, as those of a module do that is to run in it.
  bool holds_channels_last() const { return channels_last_; }

  // The device of all weights; nothing where they are on several. Numbers that a trace made tensors of are on the CPU always.
  std::optional<at::Device> device() const {
    return devices_.size() == 1 ? std::optional<at::Device>(devices_[0]) : std::nullopt;
  }

  // Whether some weight is on a GPU.
  bool is_on_gpu() const;

  // The dotted path of a value that is a module: "" for self. Nothing where the value is no module or its path is not known.
  std::optional<std::string> module_path(const torch::jit::Value* value) const;

 private:
  using Attribute = std::pair<const void*, std::string>;  // an object and a name in it: one object may have several paths

  torch::jit::Value* add_leaf(torch::jit::Value* module, torch::jit::Node* behind, Added added);
  torch::jit::Value* add_constant(torch::jit::Node* behind, const std::string& name, const at::Tensor& tensor);
  void record_assigned(const torch::jit::Graph& graph);
  void record_device(const at::Tensor& tensor);
  void record(const std::shared_ptr<torch::jit::Graph>& graph);
  std::optional<c10::IValue> stored(const torch::jit::Value* value) const;

  ModulePlaces places_;
  std::unordered_map<const torch::jit::Node*, Added> added_;
  std::set<Attribute> assigned_;  // what SetAttr writes, or the user may since it is preserved
  std::unordered_set<const void*> written_storages_;
  std::optional<Memory> memory_;
  bool channels_last_ = false;
  std::vector<at::Device> devices_;
};

}  // namespace bnfold
