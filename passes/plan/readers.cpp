#include "plan/readers.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "graph/operators.h"
#include "knowledge/extents.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether `use` is how `reader` reads the value.
bool is_of_reader(const jit::Use& use, const jit::Use& reader, const Norm& norm) {
  if (use.user == reader.user) return true;
  if (norm.is_made_by(reader.user) && norm.is_made_by(use.user)) return true;
  if (makes_pieces(use.user) && reader.user->input(0)->node() == use.user) return true;  // its rule asks for the other pieces
  if (use.user->kind() == jit::prim::ListConstruct && only_concatenation(use.user) == reader.user) return true;
  const bool leaves_branch = use.user->kind() == jit::prim::Return && use.user->owningBlock()->owningNode() == reader.user;
  return leaves_branch && use.offset == reader.offset;
}

}  // namespace

std::vector<jit::Use> other_readers(const Norm& norm, const jit::Value* value, const std::vector<jit::Use>& readers) {
  std::vector<jit::Use> others;
  std::copy_if(value->uses().begin(), value->uses().end(), std::back_inserter(others), [&](const jit::Use& use) {
    return !reads_metadata_only(use) &&
           std::none_of(readers.begin(), readers.end(), [&](const jit::Use& reader) { return is_of_reader(use, reader, norm); });
  });
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
                    return reads_metadata_only(next) || is_untouched(next, move.affine, norm, known, planned);
                  });
         });
}

Decline written_by(const jit::Node* writer) {
  return {Reason::value_changed_in_place, writer, fmt::format("by {}", writer->kind().toQualString())};
}

Decline read_by(const jit::Use& reader, const jit::Value* value) {
  const jit::Node* node = reader.user;
  if (writes_into(node, value)) return written_by(node);
  const bool returned = node->kind() == jit::prim::Return;
  return {Reason::value_has_other_readers, node,
          returned ? "it is also an output" : fmt::format("also read by {}", node->kind().toQualString())};
}

}  // namespace bnfold
