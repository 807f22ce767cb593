// What stands behind a layer, and may be computed in its step.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <optional>

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

}  // namespace bnfold
