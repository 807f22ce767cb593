#include "plan/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"
#include "plan/conditions.h"
#include "plan/layout.h"
#include "plan/readers.h"
#include "plan/steps.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// One attempt to fold a norm: moves affines from node to node until every one is absorbed. Each value is gone through once: first all ways
// back, then those on, in the order of the graph, so that whatever is missing in a value has come together before its readers are asked.
class Search {
 public:
  Search(const Norm& norm, const Knowledge& known, bool rescales, const Turns& turns)
      : norm_(norm), known_(known), rescales_(rescales), told_(turns) {}

  // Whether `backward`, wanted behind the norm's input, and `forward`, missing in its output, can all be absorbed.
  std::optional<Decline> run(const std::optional<algebra::Affine>& backward, const std::optional<algebra::Affine>& forward) {
    if (backward) norm_rank_ = backward->rank();
    if (backward) want(norm_.input(), *backward, {norm_.node(), norm_.input_place}, /*is_viewed=*/true);
    if (forward) miss(norm_.node()->output(0), *forward);
    while (!wanted_.empty() || !missing_.empty()) {
      const auto decline = wanted_.empty() ? go_on(take_first(missing_)) : go_back(take_last(wanted_));
      if (decline) return decline;
    }
    if (const auto decline = why_not_along(plan_.edits, norm_)) return decline;
    if (const auto decline = why_not_bounded(plan_.edits, norm_, known_)) return decline;
    if (const auto decline = why_not_in_dtype(plan_.edits, norm_, known_, reads_forward_)) return decline;
    if (const auto decline = why_not_in_range(plan_.edits, norm_, stretch_)) return decline;
    if (forward) {
      if (const auto decline = why_not_centered(plan_.edits, norm_, forward->shift)) return decline;
    }
    return lent_ ? why_not_in_spread(plan_.edits, norm_, *lent_) : std::nullopt;
  }

  Plan take_plan() { return std::move(plan_); }

  std::vector<const jit::Node*> passed() const { return passed_; }
  Turns turns() const { return turns_; }
  std::optional<Decline> otherwise() const { return otherwise_; }

 private:
  void want(jit::Value* value, const algebra::Affine& affine, const jit::Use& reader, bool is_viewed) {
    const auto same = std::find_if(wanted_.begin(), wanted_.end(), [&](const Wanted& other) {
      return other.value == value && algebra::is_same(other.affine, affine);
    });
    if (same != wanted_.end()) {
      same->readers.push_back(reader);
      same->is_viewed |= is_viewed;
      return;
    }
    wanted_.push_back({value, affine, {reader}, is_viewed});
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
    if (algebra::is_neutral(same->affine)) missing_.erase(same);
  }

  std::optional<Decline> go_back(const Wanted& step) {
    jit::Node* producer = step.value->node();
    for (const jit::Use& reader : step.readers) {
      if (const auto decline = why_not_reached(step.value, reader.user, norm_)) return decline;
    }
    if (const auto decline = why_not_of_rank(step.value, step.affine, known_)) return decline;
    if (const auto decline = why_not_alone(step)) return decline;
    if (const auto decline = why_not_written(step.value, known_.store)) return decline;
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
      take(*absorb);
      return std::nullopt;
    }
    const Pass& pass = way_of(answer);
    if (step.is_viewed && pass.cuts && is_order_visible(norm_.node()->output(0))) {
      plan_.layout = std::max(plan_.layout, layout_behind_cut(norm_, norm_rank_));
    }
    const bool is_viewed = step.is_viewed && operator_of(producer).storage != Storage::fresh;
    return take(pass, {producer, step.value->offset()}, Way::backward, is_viewed);
  }

  // The other readers of a value that is to become affine(value) lack the inverse of that. A scale can always be taken back. Subtracting a
  // shift that is large beside the value leaves rounding errors in its place, and only of its own input does the norm tell how large it is.
  std::optional<Decline> why_not_alone(const Wanted& step) {
    std::vector<jit::Use> readers = other_readers(norm_, step.value, step.readers);
    if (!readers.empty() && is_along_last(step.value, step.affine)) return read_by(readers.front(), step.value);
    const auto reads_what_stays = [&](const jit::Use& use) { return is_untouched(use, step.affine, norm_, known_, plan_.edits); };
    readers.erase(std::remove_if(readers.begin(), readers.end(), reads_what_stays), readers.end());
    if (readers.empty()) return std::nullopt;
    const bool shifts = algebra::has_shift(step.affine);
    const bool lends = step.value == norm_.input() && norm_.spread && !algebra::has_scale(step.affine);
    if (!rescales_ || (shifts && !lends)) return read_by(readers.front(), step.value);
    if (shifts) lent_ = step.affine.shift;
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

  std::optional<Decline> go_on(const Missing& step) {
    const bool went_back = went_back_.count(step.value) != 0 && algebra::has_shift(step.affine);
    if (went_back || !went_on_.insert(step.value).second) {
      return Decline{Reason::value_has_other_readers, step.value->node(), "two values that need each other's scale meet"};
    }
    if (const auto decline = why_not_written(step.value, known_.store)) return decline;
    for (const jit::Use& use : std::vector<jit::Use>(step.value->uses())) {
      if (reads_metadata_only(use)) continue;
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
    if (const auto decline = why_not_of_rank(step.value, step.affine, known_)) return decline;
    if (const auto decline = why_not_viewed(node, norm_, known_)) return decline;
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
    return take(way_of(answer), {node, use.offset}, Way::forward, /*is_viewed=*/false);
  }

  const Pass& way_of(const Answer& answer) {
    if (const auto* pass = std::get_if<Pass>(&answer)) return *pass;
    const auto& [ways, otherwise] = std::get<Choice>(answer);
    if (!otherwise_) otherwise_ = otherwise;
    turns_.push_back({turns_.size() < told_.size() ? told_[turns_.size()].taken : 0, ways.size()});
    return ways.at(turns_.back().taken);
  }

  void take(const Absorb& absorb) {
    plan_.edits.insert(plan_.edits.end(), absorb.edits.begin(), absorb.edits.end());
    if (std::find(plan_.into.begin(), plan_.into.end(), absorb.into) == plan_.into.end()) plan_.into.push_back(absorb.into);
  }

  std::optional<Decline> take(const Pass& pass, const jit::Use& passed, Way way, bool is_viewed) {
    jit::Node* node = passed.user;
    passed_.push_back(node);
    if (!pass.edits.empty() && !edited_.insert(node).second) {
      return Decline{Reason::value_has_other_readers, node, fmt::format("{} is passed twice", node->kind().toQualString())};
    }
    plan_.edits.insert(plan_.edits.end(), pass.edits.begin(), pass.edits.end());
    for (const Move& move : pass.moves) {
      if (algebra::is_neutral(move.affine)) continue;
      if (move.way == Way::forward) {
        miss(move.value, move.affine);
        continue;
      }
      if (way == Way::forward) stretch_ = std::max(stretch_, algebra::stretch(move.affine));
      want(move.value, move.affine, passed, is_viewed);
    }
    return std::nullopt;
  }

  const Norm& norm_;
  const Knowledge known_;
  const bool rescales_;  // whether others that read a value may be given its scale back
  const Turns& told_;
  Turns turns_;
  std::optional<Decline> otherwise_;  // what kept an operator from offering one more way
  Plan plan_{};
  std::vector<Wanted> wanted_;
  std::vector<Missing> missing_;
  std::vector<const jit::Node*> passed_;
  bool reads_forward_ = false;      // somebody reads what stands in the place of the norm's output, or what was rescaled
  int64_t norm_rank_ = 0;           // of the norm's input
  double stretch_ = 1;              // the largest factor by which a value is rescaled
  std::optional<at::Tensor> lent_;  // what is added to the norm's input, and the others that read it take off again
  std::unordered_set<const jit::Value*> went_back_;
  std::unordered_set<const jit::Value*> went_on_;
  std::unordered_set<const jit::Node*> edited_;  // nodes that let pass only with an edit
};

}  // namespace

Attempted search(const Norm& norm, const Knowledge& known, bool rescales, const std::optional<algebra::Affine>& backward,
                 const std::optional<algebra::Affine>& forward, const Turns& turns) {
  Search search(norm, known, rescales, turns);
  if (const auto decline = search.run(backward, forward))
    return {search.otherwise().value_or(*decline), search.passed(), search.turns()};
  return {search.take_plan(), search.passed(), search.turns()};
}

}  // namespace bnfold
