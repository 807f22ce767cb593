// The steps of oneDNN that take a layer and what stands behind it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace bnfold {

struct Follower {
  torch::jit::Node* node;
  bool alone;  // nothing else reads what it reads, and it stands in the same block
};

// The first reader of what `node` makes for which `is_kind(reader)` holds.
template <typename IsKind>
std::optional<Follower> follower_of(const torch::jit::Node* node, const IsKind& is_kind) {
  const auto& uses = node->output()->uses();
  const auto found = std::find_if(uses.begin(), uses.end(), [&](const torch::jit::Use& use) { return is_kind(use.user); });
  if (found == uses.end()) return std::nullopt;
  return Follower{found->user, uses.size() == 1 && found->user->owningBlock() == node->owningBlock()};
}

// Inserts the operator `kind`, "mkldnn::_linear_pointwise", of `inputs`, with the source of `layer`.
torch::jit::Value* insert_operator(const char* kind, at::ArrayRef<torch::jit::Value*> inputs, torch::jit::Node* layer);

// Lets all readers of the last of `nodes`, which stand in the order of the graph, read `step`, and removes them.
void replace_by_step(const std::vector<torch::jit::Node*>& nodes, torch::jit::Value* step);

}  // namespace bnfold
