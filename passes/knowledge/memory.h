// Who writes into the memory of a value.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

namespace bnfold {

struct Writers {
  std::vector<const torch::jit::Node*> nodes;
  bool unknown = false;  // the value goes where it can't be followed, into a list that is kept or a custom operator
};

// The nodes that write into `value` or into what shares memory with it, those behind `norm` left out, whose output is memory of its own.
Writers writers_of(const torch::jit::Value* value, const torch::jit::Node* norm = nullptr);

// Whether something writes into `value`, or may.
bool may_be_written(const torch::jit::Value* value);

// Whether `one` and `other` read the same contents of `value`: nothing writes into it between them. Behind `norm`, as in writers_of.
bool read_the_same(const torch::jit::Value* value, const torch::jit::Node* one, const torch::jit::Node* other,
                   const torch::jit::Node* norm = nullptr);

// The only node that reads the contents of `value`, with the place; nothing where there are several.
std::optional<torch::jit::Use> only_reader(const torch::jit::Value* value);

// Whether `node` is that one, and stands in the block of `value`: in a block of its own it may run several times, or not at all.
bool is_only_reader(const torch::jit::Node* node, const torch::jit::Value* value);

// Whether `reader` runs in a loop that `producer` is not in: then each round reads the same memory, and one may write into it.
bool is_in_loop_behind(const torch::jit::Node* reader, const torch::jit::Node* producer);

// Whether `value` surely lies in memory in one of the orders that batch_norm makes.
bool is_dense(const torch::jit::Value* value);

// The concatenation that is the only reader of the list which `list` makes, null where there is none.
torch::jit::Node* only_concatenation(const torch::jit::Node* list);

}  // namespace bnfold
