// Which values of a graph may share memory, and who writes into it.
//
// One analysis for values, parameters, buffers, lists, dicts and inputs. What an operator does to memory stands in the operator table; what
// is not listed there may return any of its inputs, and what is no operator of LibTorch may write into them. Values that may share memory
// form a class. In the class of the outside are the inputs of the graph, of which two may be one tensor, what tasks see, and whatever
// can't be followed.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace bnfold {

// The memory of a tensor, by its identity; null for one without memory of its own, or none.
const void* storage_of(const at::Tensor& tensor);

// Whether a value of this type may be, or have in it, a tensor.
bool may_hold_tensor(const c10::Type& type);

class Memory {
 public:
  // What a leaf, an attribute or a constant, holds in every run; nothing where that can't be told.
  using Content = std::function<std::optional<c10::IValue>(const torch::jit::Value*)>;

  // Of `graph`, its blocks and tasks. Without `content` all attributes are the outside's.
  explicit Memory(const torch::jit::Graph& graph, Content content = nullptr);

  // The nodes that write into `value`, or into what may share memory with it. A list that grows is no write into the tensors that it holds.
  const std::vector<const torch::jit::Node*>& writers_of(const torch::jit::Value* value) const;
  bool may_be_written(const torch::jit::Value* value) const { return !writers_of(value).empty(); }

  // All values that may share memory with `value`, itself among them.
  std::vector<const torch::jit::Value*> sharing(const torch::jit::Value* value) const;

  // Whether `one` and `other` read the same contents of `value`: nothing writes into it between them.
  bool read_the_same(const torch::jit::Value* value, const torch::jit::Node* one, const torch::jit::Node* other) const;

  // Whether a run makes the memory of `value` anew, and nobody outside of the graph sees it but as its output.
  bool is_private(const torch::jit::Value* value) const;

  // Whether nobody would see what `node`, which reads `value`, writes into it but through `node` and through `value`: the memory was made in the
  // same round of a loop, it goes nowhere before `node` where it can't be followed, and nothing else that shares it is read behind `node`.
  bool may_be_overwritten(const torch::jit::Value* value, const torch::jit::Node* node) const;

  // Takes note that `value` may be the memory of `like`, in whose place it stands now.
  void adopt(const torch::jit::Value* value, const torch::jit::Value* like);

  // Takes note that `value` is gone.
  void forget(const torch::jit::Value* value);

 private:
  struct Class {
    std::vector<const torch::jit::Value*> members;
    std::vector<const torch::jit::Node*> writers;            // into tensors
    std::vector<const torch::jit::Node*> container_writers;  // into lists, dicts and objects
    bool is_leaf = false;                                    // an attribute or a constant is among it
  };

  void read(const torch::jit::Block* block);
  void read(const torch::jit::Node* node);
  void read_leaf(const torch::jit::Value* value);
  void read_condition(const torch::jit::Node* node);
  void read_loop(const torch::jit::Node* node);
  void read_task(const torch::jit::Node* node);
  void read_writes(const torch::jit::Node* node);
  void read_outputs(const torch::jit::Node* node);
  void share_all(const torch::jit::Node* node);
  void expose(at::ArrayRef<const torch::jit::Value*> values);
  void share(const torch::jit::Value* value, const torch::jit::Value* other);
  void share(const torch::jit::Value* value, const void* part);
  Class& class_of(const torch::jit::Value* value);
  const void* root(const void* one) const;
  const Class* find(const void* one) const;

  Content content_;
  std::unordered_map<const void*, const void*> parent_;  // of values, storages, lists and the outside
  std::unordered_set<const void*> gone_;                 // values that were forgotten
  std::unordered_map<const void*, Class> classes_;       // by what root() gives
};

// The only node that reads the contents of `value`, with the place; nothing where there are several.
std::optional<torch::jit::Use> only_reader(const torch::jit::Value* value);

// Whether `node` is that one, and stands in the block of `value`: in a block of its own it may run several times, or not at all.
bool is_only_reader(const torch::jit::Node* node, const torch::jit::Value* value);

// Whether `reader` runs in a loop that `producer` is not in: then each round reads the same memory, and one may write into it.
bool is_in_loop_behind(const torch::jit::Node* reader, const torch::jit::Node* producer);

// Whether `node` is a norm that may train, which writes into its statistics `value`: no schema says so.
bool writes_statistics(const torch::jit::Node* node, const torch::jit::Value* value);

// The concatenation, or stack, that is the only reader of the list which `list` makes, null where there is none.
torch::jit::Node* only_concatenation(const torch::jit::Node* list);

}  // namespace bnfold
