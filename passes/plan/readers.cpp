#include "plan/readers.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/operators.h"
#include "knowledge/extents.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

std::vector<jit::Use> other_readers(const Norm& norm, const jit::Value* value, const jit::Use& reader) {
  std::vector<jit::Use> others;
  const bool read_by_norm = norm.is_made_by(reader.user);
  for (const jit::Use& use : value->uses()) {
    if (use.user == reader.user || reads_metadata_only(use.user, value)) continue;
    if (read_by_norm && norm.is_made_by(use.user)) continue;
    if (makes_pieces(use.user) && reader.user->input(0)->node() == use.user) continue;  // its rule asks for the other pieces
    if (use.user->kind() == jit::prim::ListConstruct && only_concatenation(use.user) == reader.user) continue;
    const bool leaves_branch = use.user->kind() == jit::prim::Return && use.user->owningBlock()->owningNode() == reader.user;
    if (leaves_branch && use.offset == reader.offset) continue;
    others.push_back(use);
  }
  return others;
}

bool is_untouched(const jit::Use& reader, const algebra::Affine& affine, const Norm& norm, const Knowledge& known,
                  const std::vector<Edit>& planned) {
  const Rule* rule = rule_for(reader.user);
  if (rule == nullptr || rule->forward == nullptr || rule->family != "slice") return false;
  const Answer answer = rule->forward({reader.user, reader.offset, affine, norm.dtype, norm.along_channels, known, planned});
  const auto* pass = std::get_if<Pass>(&answer);
  return pass != nullptr && std::all_of(pass->moves.begin(), pass->moves.end(), [&](const Move& move) {
           const auto& uses = move.value->uses();
           return algebra::is_neutral(move.affine) || std::all_of(uses.begin(), uses.end(), [&](const jit::Use& next) {
                    return reads_metadata_only(next.user, move.value) || is_untouched(next, move.affine, norm, known, planned);
                  });
         });
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
