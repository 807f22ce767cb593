#include "plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Reads of what a fold does not change: rank, sizes, dtype and device of a value.
bool reads_metadata_only(const jit::Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "aten::dim",        "aten::size",         "aten::len",          "aten::numel",  "aten::is_floating_point",
      "aten::is_complex", "prim::dtype",        "prim::device",       "prim::layout", "prim::is_cuda",
      "prim::is_sparse",  "prim::is_quantized", "prim::requires_grad"};
  return kinds.count(node->kind().toQualString()) != 0;
}

bool writes_into(const jit::Node* node, const jit::Value* value) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr) return false;
  for (size_t i = 0; i < node->inputs().size() && i < schema->arguments().size(); ++i) {
    const c10::AliasInfo* alias = schema->arguments()[i].alias_info();
    if (node->inputs()[i] == value && alias != nullptr && alias->isWrite()) return true;
  }
  return false;
}

// Who beside `reader` reads the contents of `value`, as a decline.
std::optional<Decline> other_reader(const jit::Value* value, const jit::Node* reader) {
  for (const jit::Use& use : value->uses()) {
    if (use.user == reader || reads_metadata_only(use.user)) continue;
    if (writes_into(use.user, value)) {
      return Decline{Reason::value_changed_in_place, use.user, fmt::format("by {}", use.user->kind().toQualString())};
    }
    const bool returned = use.user->kind() == jit::prim::Return;
    return Decline{Reason::value_has_other_readers, use.user,
                   returned ? "it is also an output" : fmt::format("also read by {}", use.user->kind().toQualString())};
  }
  return std::nullopt;
}

std::optional<Decline> why_not_from_here(const jit::Value* value, const jit::Node* norm) {
  const jit::Node* producer = value->node();
  if (producer->kind() == jit::prim::Param) {
    const bool graph_input = producer->owningBlock() == producer->owningGraph()->block();
    return Decline{graph_input ? Reason::value_from_graph_input : Reason::value_from_other_block, norm,
                   fmt::format("%{} comes from outside", value->debugName())};
  }
  if (producer->owningBlock() != norm->owningBlock()) {
    return Decline{Reason::value_from_other_block, producer,
                   fmt::format("{} is in another block", producer->kind().toQualString())};
  }
  return std::nullopt;
}

// The order of a view that is permuted by `inner` first and by `outer` then.
std::vector<int64_t> composed(const std::vector<int64_t>& inner, std::vector<int64_t> outer) {
  if (outer.size() != inner.size()) return outer.empty() ? inner : outer;
  for (int64_t& dimension : outer) dimension = inner.at(dimension);
  return outer;
}

// batch_norm gives its output the memory format that its input suggests: channels_last for a contiguous [N, H, W, C] that was
// permuted to [N, C, H, W], contiguous for every other order.
bool batch_norm_would_reorder(const std::vector<int64_t>& order) {
  const bool in_order = std::is_sorted(order.begin(), order.end());
  const bool channels_last = (order.size() == 4 || order.size() == 5) && order[0] == 0 &&
                             order[1] == static_cast<int64_t>(order.size()) - 1 && std::is_sorted(order.begin() + 2, order.end());
  return !in_order && !channels_last;
}

// Hands an affine from reader to producer until a producer absorbs it. The path of a norm is a chain: one rule, one producer.
std::variant<Plan, Decline> backward(const Norm& norm, algebra::Affine affine, const ParameterStore& store, const Ranks& ranks) {
  Plan plan{norm.node, {}, Direction::backward, ""};
  const jit::Value* value = norm.input();
  const jit::Node* reader = norm.node;
  std::vector<int64_t> order;  // of the norm's input as a permuted view of `value`
  while (true) {
    if (const auto decline = why_not_from_here(value, norm.node)) return *decline;
    if (const auto decline = other_reader(value, reader)) return *decline;
    jit::Node* producer = const_cast<jit::Node*>(value->node());
    const Rule* rule = rule_for(producer);
    if (rule == nullptr) {
      return Decline{Reason::no_rule_for_operator, producer, fmt::format("behind {}", producer->kind().toQualString())};
    }
    const Answer answer = rule->backward({producer, affine, norm.dtype, store, ranks});
    if (const auto* decline = std::get_if<Decline>(&answer)) return *decline;
    if (const auto* absorb = std::get_if<Absorb>(&answer)) {
      plan.edits.insert(plan.edits.end(), absorb->edits.begin(), absorb->edits.end());
      plan.into = absorb->into;
      plan.needs_contiguous = batch_norm_would_reorder(order);
      return plan;
    }
    const Pass& pass = std::get<Pass>(answer);
    plan.edits.insert(plan.edits.end(), pass.edits.begin(), pass.edits.end());
    if (!pass.order.empty()) order = composed(pass.order, order);
    affine = pass.affine;
    value = pass.to;
    reader = producer;
  }
}

}  // namespace

std::variant<Plan, Decline> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks) {
  if (const auto* decline = std::get_if<Decline>(&norm.content)) return *decline;
  const auto rank = ranks.of(norm.input());
  if (rank && *rank < 2) return Decline{Reason::rank_unknown, norm.node, fmt::format("the norm's input has rank {}", *rank)};
  if (!rank && ranks.has_hints()) {
    return Decline{Reason::rank_unknown, norm.node, "the ranks of the module's inputs don't tell that of the norm's input"};
  }
  // Rank 2 is the one at which a linear layer can take a norm; that layer's rule has the rank checked where it is not certain.
  return backward(norm, algebra::along_channels(std::get<algebra::Affine>(norm.content), rank.value_or(2)), store, ranks);
}

std::string source_of(const jit::Node* node) {
  // A module that was loaded from a file knows the code that was written into it, and from that the code it was made of.
  const jit::SourceRange& written = node->sourceRange();
  const auto generating = written.findSourceRangeThatGenerated();
  const auto place = (generating ? *generating : written).file_line_col();
  if (!place) return "";
  const auto& [file, line, column] = *place;
  const size_t slash = file.rfind('/');
  return fmt::format("{}:{}", slash == std::string::npos ? file : file.substr(slash + 1), line);
}

}  // namespace bnfold
