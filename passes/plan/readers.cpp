#include "plan/readers.h"

#include <fmt/format.h>

#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

std::vector<jit::Use> other_readers(const Norm& norm, const jit::Value* value, const jit::Use& reader) {
  std::vector<jit::Use> others;
  const bool read_by_norm = norm.is_made_by(reader.user);
  for (const jit::Use& use : value->uses()) {
    if (use.user == reader.user || reads_metadata_only(use.user, value)) continue;
    if (read_by_norm && norm.is_made_by(use.user)) continue;
    if (use.user->kind() == jit::prim::ListConstruct && only_concatenation(use.user) == reader.user) continue;
    const bool leaves_branch = use.user->kind() == jit::prim::Return && use.user->owningBlock()->owningNode() == reader.user;
    if (leaves_branch && use.offset == reader.offset) continue;
    others.push_back(use);
  }
  return others;
}

Decline read_by(const jit::Use& reader, const jit::Value* value) {
  const jit::Node* node = reader.user;
  if (writes_into(node, value)) {
    return {Reason::value_changed_in_place, node, fmt::format("by {}", node->kind().toQualString())};
  }
  const bool returned = node->kind() == jit::prim::Return;
  return {Reason::value_has_other_readers, node,
          returned ? "it is also an output" : fmt::format("also read by {}", node->kind().toQualString())};
}

}  // namespace bnfold
