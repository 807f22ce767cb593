// Who writes into the memory of a value.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

namespace bnfold {

struct Writers {
  std::vector<const torch::jit::Node*> nodes;
  bool unknown = false;  // the value goes where it can't be followed, into a list that is kept or a custom operator
};

// The nodes that write into `value` or into what shares memory with it, those behind `norm` left out, whose output is memory of its own.
Writers writers_of(const torch::jit::Value* value, const torch::jit::Node* norm);

// Whether `reader` runs in a loop that `producer` is not in: then each round reads the same memory, and one may write into it.
bool is_in_loop_behind(const torch::jit::Node* reader, const torch::jit::Node* producer);

// Whether `value` surely lies in memory in one of the orders that batch_norm makes.
bool is_dense(const torch::jit::Value* value);

// The concatenation that is the only reader of the list which `list` makes, null where there is none.
torch::jit::Node* only_concatenation(const torch::jit::Node* list);

}  // namespace bnfold
