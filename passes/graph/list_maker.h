// What a list holds.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>

namespace bnfold {

// Whether the operator reads a list as it is then, and neither changes it, nor keeps it, nor returns it.
bool only_reads_list(const torch::jit::Use& use);

// The node that makes `list`, which then holds what that puts into it; null where something may change it, under another name too.
const torch::jit::Node* maker_of_list(const torch::jit::Value* list);

// The items of a list that is written out, likewise; nothing where it is made in another way.
std::optional<at::ArrayRef<const torch::jit::Value*>> items_of_list(const torch::jit::Value* list);

// The tensor of which `list` holds all sizes; null where that is not known.
const torch::jit::Value* tensor_of_sizes(const torch::jit::Value* list);

}  // namespace bnfold
