#include "plan/search.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>

#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "plan/conditions.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

using Order = std::vector<int64_t>;

// The order of a view that is permuted by `inner` first and by `outer` then.
Order composed(const Order& inner, Order outer) {
  if (outer.size() != inner.size()) return outer.empty() ? inner : outer;
  for (int64_t& dimension : outer) dimension = inner.at(dimension);
  return outer;
}

// batch_norm gives its output the memory format that its input suggests: channels_last for a contiguous [N, H, W, C] that was
// permuted to [N, C, H, W], contiguous for every other order.
bool batch_norm_would_reorder(const Order& order) {
  const bool in_order = std::is_sorted(order.begin(), order.end());
  const bool channels_last = (order.size() == 4 || order.size() == 5) && order[0] == 0 &&
                             order[1] == static_cast<int64_t>(order.size()) - 1 && std::is_sorted(order.begin() + 2, order.end());
  return !in_order && !channels_last;
}

bool is_neutral(const algebra::Affine& affine) {
  return !algebra::has_scale(affine) && !algebra::has_shift(affine);
}

// One attempt to fold a norm: moves affines from node to node until every one is absorbed. Each value is gone through once: first all ways
// back, then those on, in the order of the graph, so that whatever is missing in a value has come together before its readers are asked.
class Search {
 public:
  Search(const Norm& norm, const Knowledge& known, bool rescales) : norm_(norm), known_(known), rescales_(rescales) {}

  // Whether `backward`, wanted behind the norm's input, and `forward`, missing in its output, can all be absorbed.
  std::optional<Decline> run(const std::optional<algebra::Affine>& backward, const std::optional<algebra::Affine>& forward) {
    if (backward) norm_rank_ = backward->rank();
    if (backward) want(norm_.input(), *backward, {norm_.node(), norm_.input_place}, Order(), /*is_viewed=*/true);
    if (forward) miss(norm_.node()->output(0), *forward);
    while (!wanted_.empty() || !missing_.empty()) {
      const auto decline = wanted_.empty() ? go_on(take_first(missing_)) : go_back(take_last(wanted_));
      if (decline) return decline;
    }
    if (const auto decline = why_not_bounded(plan_.edits, norm_, known_)) return decline;
    if (const auto decline = why_not_in_dtype(plan_.edits, norm_, known_, reads_forward_)) return decline;
    return why_not_in_range(plan_.edits, norm_, stretch_);
  }

  Plan take_plan() {
    plan_.into = fmt::format("{}", fmt::join(into_, ", "));
    return std::move(plan_);
  }

  std::vector<const jit::Node*> passed() const { return passed_; }

 private:
  struct Wanted {
    jit::Value* value;
    algebra::Affine affine;
    jit::Use reader;             // that wants it; of a branch, which output of it
    std::optional<Order> order;  // of the norm's input as a view of the value; nothing behind a copy
    bool is_viewed = false;      // whether the norm's input may be the memory of the value
  };

  struct Missing {
    jit::Value* value;
    algebra::Affine affine;
  };

  void want(jit::Value* value, const algebra::Affine& affine, const jit::Use& reader, const std::optional<Order>& order,
            bool is_viewed) {
    wanted_.push_back({value, affine, reader, order, is_viewed});
  }

  // What is missing in a value was told for the value as it was. Scales may come in any order.
  std::optional<Decline> why_not_apart(const Wanted& step) const {
    const auto same = std::find_if(missing_.begin(), missing_.end(), [&](const Missing& one) { return one.value == step.value; });
    if (same == missing_.end() || (!algebra::has_shift(step.affine) && !algebra::has_shift(same->affine))) return std::nullopt;
    return Decline{Reason::value_has_other_readers, step.value->node(), "two values that need each other's scale meet"};
  }

  // Another operand of what makes the value may have lacked something, too.
  void miss(jit::Value* value, const algebra::Affine& affine) {
    const auto same = std::find_if(missing_.begin(), missing_.end(), [value](const Missing& one) { return one.value == value; });
    if (same == missing_.end()) return missing_.push_back({value, affine});
    same->affine = algebra::composed(affine, same->affine);
    if (is_neutral(same->affine)) missing_.erase(same);
  }

  static Wanted take_last(std::vector<Wanted>& all) {
    const Wanted last = std::move(all.back());
    all.pop_back();
    return last;
  }

  static Missing take_first(std::vector<Missing>& all) {
    const auto first = std::min_element(all.begin(), all.end(), [](const Missing& one, const Missing& other) {
      const jit::Node* node = one.value->node();
      return node == other.value->node() ? one.value->offset() < other.value->offset() : node->isBefore(other.value->node());
    });
    const Missing taken = std::move(*first);
    all.erase(first);
    return taken;
  }

  std::optional<Decline> go_back(const Wanted& step) {
    jit::Node* producer = step.value->node();
    if (const auto decline = why_not_from(step.value, step.reader.user)) return decline;
    if (const auto decline = why_not_of_rank(step.value, step.affine)) return decline;
    if (const auto decline = why_not_alone(step)) return decline;
    if (const auto decline = why_not_written(step.value)) return decline;
    if (const auto decline = why_not_apart(step)) return decline;
    if (!went_back_.insert(step.value).second) {
      return Decline{Reason::value_has_other_readers, producer,
                     fmt::format("{} is needed twice", producer->kind().toQualString())};
    }
    const Rule* rule = rule_for(producer);
    if (rule == nullptr || rule->backward == nullptr) {
      return Decline{Reason::no_rule_for_operator, producer, fmt::format("behind {}", producer->kind().toQualString())};
    }
    const Answer answer =
        rule->backward({producer, step.value->offset(), step.affine, norm_.dtype, norm_.along_channels, known_, plan_.edits});
    if (const auto* decline = std::get_if<Decline>(&answer)) return *decline;
    if (const auto* absorb = std::get_if<Absorb>(&answer)) {
      if (step.order) plan_.needs_contiguous |= batch_norm_would_reorder(*step.order);
      take(*absorb);
      return std::nullopt;
    }
    const Pass& pass = std::get<Pass>(answer);
    std::optional<Order> order = step.order;
    if (order && !pass.order.empty()) order = composed(pass.order, *order);
    if (order && pass.moves.size() != 1) {
      plan_.needs_contiguous |= batch_norm_would_reorder(*order);
      order = std::nullopt;
    }
    if (step.is_viewed && pass.cuts && is_order_visible(norm_.node()->output(0))) copy_part();
    const bool is_viewed = step.is_viewed && operator_of(producer).storage != Storage::fresh;
    return take(pass, {producer, step.value->offset()}, Way::backward, order, is_viewed);
  }

  // batch_norm makes a dense tensor of a part, of four or five dimensions in the order that these have.
  void copy_part() {
    const bool in_order = norm_rank_ == 4 || norm_rank_ == 5;
    (in_order ? plan_.needs_copy : plan_.needs_contiguous) = true;
  }

  // The other readers of a value that is to become affine(value) lack the inverse of that. Only a scale can be taken back: subtracting
  // a shift that is large beside the value leaves rounding errors in its place.
  std::optional<Decline> why_not_alone(const Wanted& step) {
    std::vector<jit::Use> readers = other_readers(step.value, step.reader);
    if (!readers.empty() && is_along_last(step.value, step.affine)) return is_read_by(readers.front(), step.value);
    const auto reads_what_stays = [&](const jit::Use& use) { return is_untouched(use, step.affine); };
    readers.erase(std::remove_if(readers.begin(), readers.end(), reads_what_stays), readers.end());
    if (readers.empty()) return std::nullopt;
    if (!rescales_ || algebra::has_shift(step.affine)) return is_read_by(readers.front(), step.value);
    if (algebra::has_zero_scale(step.affine)) {
      return Decline{Reason::scale_not_invertible, readers.front().user,
                     "what reads the value too can't be divided by a scale of 0"};
    }
    stretch_ = std::max(stretch_, algebra::stretch(step.affine));
    const algebra::Affine inverse = algebra::inverse(step.affine);
    for (const jit::Use& use : readers) {
      if (const auto decline = go_into(use, {step.value, inverse})) return decline;
    }
    return std::nullopt;
  }

  // Whether a reader of a value that is to become affine(value) takes only a part of it that stays as it is.
  bool is_untouched(const jit::Use& use, const algebra::Affine& affine) const {
    const Rule* rule = rule_for(use.user);
    if (rule == nullptr || rule->forward == nullptr || rule->family != "slice") return false;
    const Answer answer = rule->forward({use.user, use.offset, affine, norm_.dtype, norm_.along_channels, known_, plan_.edits});
    const auto* pass = std::get_if<Pass>(&answer);
    return pass != nullptr && std::all_of(pass->moves.begin(), pass->moves.end(), [this](const Move& move) {
             const auto& uses = move.value->uses();
             return is_neutral(move.affine) || std::all_of(uses.begin(), uses.end(), [&](const jit::Use& next) {
                      return reads_metadata_only(next.user, move.value) || is_untouched(next, move.affine);
                    });
           });
  }

  std::optional<Decline> go_on(const Missing& step) {
    const bool went_back = went_back_.count(step.value) != 0 && algebra::has_shift(step.affine);
    if (went_back || !went_on_.insert(step.value).second) {
      return Decline{Reason::value_has_other_readers, step.value->node(), "two values that need each other's scale meet"};
    }
    if (const auto decline = why_not_written(step.value)) return decline;
    for (const jit::Use& use : std::vector<jit::Use>(step.value->uses())) {
      if (reads_metadata_only(use.user, step.value)) continue;
      if (const auto decline = go_into(use, step)) return decline;
    }
    return std::nullopt;
  }

  std::optional<Decline> go_into(const jit::Use& use, const Missing& step) {
    jit::Node* node = use.user;
    if (norm_.is_made_by(node)) return Decline{Reason::value_has_other_readers, node, "the value is read by the norm itself"};
    if (node->kind() == jit::prim::Return) {
      const bool graph_output = node->owningBlock() == node->owningGraph()->block();
      return Decline{graph_output ? Reason::value_is_output : Reason::value_from_other_block, node,
                     graph_output ? "the normalized value is an output" : "the normalized value leaves a branch or loop"};
    }
    if (node->kind() == jit::prim::ListConstruct) node = only_concatenation(node);
    if (node == nullptr || node->kind() == jit::aten::append || node->kind() == jit::prim::TupleConstruct ||
        node->kind() == jit::prim::DictConstruct) {
      return Decline{Reason::value_in_container, use.user, "the normalized value is put into a list, tuple or dict"};
    }
    if (const auto decline = why_not_of_rank(step.value, step.affine)) return decline;
    if (const auto decline = why_not_viewed(node)) return decline;
    const Rule* rule = rule_for(node);
    if (rule == nullptr || rule->forward == nullptr) {
      return Decline{Reason::no_rule_for_operator, node, fmt::format("before {}", node->kind().toQualString())};
    }
    const Answer answer = rule->forward({node, use.offset, step.affine, norm_.dtype, norm_.along_channels, known_, plan_.edits});
    if (const auto* decline = std::get_if<Decline>(&answer)) return *decline;
    reads_forward_ = true;
    if (const auto* absorb = std::get_if<Absorb>(&answer)) {
      take(*absorb);
      return std::nullopt;
    }
    return take(std::get<Pass>(answer), {node, use.offset}, Way::forward, std::nullopt, /*is_viewed=*/false);
  }

  void take(const Absorb& absorb) {
    plan_.edits.insert(plan_.edits.end(), absorb.edits.begin(), absorb.edits.end());
    if (std::find(into_.begin(), into_.end(), absorb.into) == into_.end()) into_.push_back(absorb.into);
  }

  std::optional<Decline> take(const Pass& pass, const jit::Use& passed, Way way, const std::optional<Order>& order,
                              bool is_viewed) {
    jit::Node* node = passed.user;
    passed_.push_back(node);
    if (!pass.edits.empty() && !edited_.insert(node).second) {
      return Decline{Reason::value_has_other_readers, node, fmt::format("{} is passed twice", node->kind().toQualString())};
    }
    plan_.edits.insert(plan_.edits.end(), pass.edits.begin(), pass.edits.end());
    for (const Move& move : pass.moves) {
      if (is_neutral(move.affine)) continue;
      if (move.way == Way::forward) {
        miss(move.value, move.affine);
        continue;
      }
      if (way == Way::forward) stretch_ = std::max(stretch_, algebra::stretch(move.affine));
      want(move.value, move.affine, passed, order, is_viewed);
    }
    return std::nullopt;
  }

  std::optional<Decline> why_not_from(const jit::Value* value, const jit::Node* reader) const {
    const jit::Node* producer = value->node();
    if (norm_.is_made_by(producer)) {
      return Decline{Reason::value_has_other_readers, producer, "the value depends on the norm itself"};
    }
    if (producer->kind() != jit::prim::Param) {
      if (!is_in_loop_behind(reader, producer)) return std::nullopt;
      return Decline{Reason::value_from_other_block, producer, "a loop normalizes again and again what is computed before it"};
    }
    const bool graph_input = producer->owningBlock() == producer->owningGraph()->block();
    return Decline{graph_input ? Reason::value_from_graph_input : Reason::value_from_other_block, norm_.node(),
                   fmt::format("%{} comes from outside", value->debugName())};
  }

  // Who beside `reader` reads the contents of `value`.
  std::vector<jit::Use> other_readers(const jit::Value* value, const jit::Use& reader) const {
    std::vector<jit::Use> others;
    const bool read_by_norm = norm_.is_made_by(reader.user);
    for (const jit::Use& use : value->uses()) {
      if (use.user == reader.user || reads_metadata_only(use.user, value)) continue;
      if (read_by_norm && norm_.is_made_by(use.user)) continue;
      if (makes_pieces(use.user) && reader.user->input(0)->node() == use.user) continue;  // its rule asks for the other pieces
      if (use.user->kind() == jit::prim::ListConstruct && only_concatenation(use.user) == reader.user) continue;
      const bool leaves_branch = use.user->kind() == jit::prim::Return && use.user->owningBlock()->owningNode() == reader.user;
      if (leaves_branch && use.offset == reader.offset) continue;
      others.push_back(use);
    }
    return others;
  }

  static Decline is_read_by(const jit::Use& reader, const jit::Value* value) {
    const jit::Node* node = reader.user;
    if (writes_into(node, value)) {
      return {Reason::value_changed_in_place, node, fmt::format("by {}", node->kind().toQualString())};
    }
    const bool returned = node->kind() == jit::prim::Return;
    return {Reason::value_has_other_readers, node,
            returned ? "it is also an output" : fmt::format("also read by {}", node->kind().toQualString())};
  }

  // Whether the affine is for a linear layer that may be called on a value of any rank.
  static bool is_along_last(const jit::Value* value, const algebra::Affine& affine) {
    return affine.rank() == 1 && value->node()->kind() == jit::aten::linear;
  }

  std::optional<Decline> why_not_of_rank(const jit::Value* value, const algebra::Affine& affine) const {
    if (is_along_last(value, affine)) return std::nullopt;
    if (known_.ranks.allow(value, affine.rank())) return std::nullopt;
    return Decline{Reason::rank_unknown, value->node(),
                   fmt::format("a value of rank {} where {} was expected", *known_.ranks.of(value), affine.rank())};
  }

  // What is written in place though the graph was made functional is memory that others may see.
  std::optional<Decline> why_not_written(const jit::Value* value) const {
    const auto& writers = known_.store.memory().writers_of(value);
    if (writers.empty()) return std::nullopt;
    return Decline{Reason::value_changed_in_place, writers.front(), fmt::format("by {}", writers.front()->kind().toQualString())};
  }

  // batch_norm makes a permuted or sliced input dense, as view needs it.
  std::optional<Decline> why_not_viewed(const jit::Node* node) const {
    if (node->kind() != jit::aten::view || is_dense(norm_.input())) return std::nullopt;
    return Decline{Reason::memory_order_unknown, node, "a view of what may be permuted in memory"};
  }

  const Norm& norm_;
  const Knowledge known_;
  const bool rescales_;  // whether others that read a value may be given its scale back
  Plan plan_{};
  std::vector<Wanted> wanted_;
  std::vector<Missing> missing_;
  std::vector<std::string> into_;
  std::vector<const jit::Node*> passed_;
  bool reads_forward_ = false;  // somebody reads what stands in the place of the norm's output, or what was rescaled
  int64_t norm_rank_ = 0;       // of the norm's input
  double stretch_ = 1;          // the largest factor by which a value is rescaled
  std::unordered_set<const jit::Value*> went_back_;
  std::unordered_set<const jit::Value*> went_on_;
  std::unordered_set<const jit::Node*> edited_;  // nodes that let pass only with an edit
};

}  // namespace

Attempted search(const Norm& norm, const Knowledge& known, bool rescales, const std::optional<algebra::Affine>& backward,
                 const std::optional<algebra::Affine>& forward) {
  Search search(norm, known, rescales);
  if (const auto decline = search.run(backward, forward)) return {*decline, search.passed()};
  return {search.take_plan(), search.passed()};
}

}  // namespace bnfold
