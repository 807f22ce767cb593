#include "plan/search.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>

#include "graph/operators.h"
#include "knowledge/dtypes.h"
#include "knowledge/memory.h"

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

// A norm takes narrower values than its parameters, and tells nothing of their dtype.
bool is_of_a_norm(const Edit& edit) {
  const auto* set = std::get_if<SetInput>(&edit);
  return set != nullptr && is_normalizing(set->node);
}

// One attempt to fold a norm: moves affines from node to node until every one is absorbed.
class Search {
 public:
  Search(const Norm& norm, const Knowledge& known, bool rescales)
      : norm_(norm), known_(known), rescales_(rescales), owns_input_(owns_input()) {}

  // Whether `backward`, wanted behind the norm's input, and `forward`, missing in its output, can all be absorbed.
  std::optional<Decline> run(const std::optional<algebra::Affine>& backward, const std::optional<algebra::Affine>& forward) {
    if (backward) want(norm_.input(), *backward, {norm_.node(), norm_.input_place}, Order());
    if (!forward) {
      if (const auto decline = why_not_written_behind()) return decline;
    } else {
      if (const auto decline = why_not_replaceable()) return decline;
      miss(norm_.node()->output(0), *forward, /*alone=*/true);
    }
    while (!steps_.empty()) {
      const Step step = std::move(steps_.back());
      steps_.pop_back();
      const auto decline = step.way == Way::backward ? go_back(step) : go_on(step);
      if (decline) return decline;
    }
    if (const auto decline = why_not_bounded()) return decline;
    if (const auto decline = why_not_in_dtype()) return decline;
    if (const auto decline = why_not_in_range()) return decline;
    return why_not_in_time();
  }

  Plan take_plan() {
    plan_.into = fmt::format("{}", fmt::join(into_, ", "));
    return std::move(plan_);
  }

  std::vector<const jit::Node*> passed() const { return passed_; }

 private:
  struct Step {
    jit::Value* value;
    algebra::Affine affine;
    Way way;
    jit::Use from{nullptr, 0};             // backward: the reader that wants the affine; of a branch, which output of it
    std::optional<Order> order = Order();  // backward: of the norm's input as a view of the value; nothing behind a copy
    bool alone = true;                     // forward: nobody else reads the memory of the value
  };

  void want(jit::Value* value, const algebra::Affine& affine, const jit::Use& from, const std::optional<Order>& order) {
    steps_.push_back({value, affine, Way::backward, from, order, true});
  }

  void miss(jit::Value* value, const algebra::Affine& affine, bool alone) {
    steps_.push_back({value, affine, Way::forward, {nullptr, 0}, std::nullopt, alone});
  }

  std::optional<Decline> go_back(const Step& step) {
    jit::Node* producer = step.value->node();
    if (const auto decline = why_not_from(step.value, step.from.user)) return decline;
    if (const auto decline = why_not_of_rank(step)) return decline;
    if (const auto decline = why_not_alone(step)) return decline;
    if (const auto decline = why_not_written(producer)) return decline;
    if (!wanted_.insert(step.value).second) {
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
    return take(pass, {producer, step.value->offset()}, Way::backward, order, /*alone=*/true);
  }

  // The other readers of a value that is to become affine(value) lack the inverse of that. Only a scale can be taken back: subtracting
  // a shift that is large beside the value leaves rounding errors in its place.
  std::optional<Decline> why_not_alone(const Step& step) {
    const std::vector<jit::Use> readers = other_readers(step.value, step.from);
    if (readers.empty()) return std::nullopt;
    if (!rescales_ || algebra::has_shift(step.affine)) return is_read_by(readers.front(), step.value);
    if (algebra::has_zero_scale(step.affine)) {
      return Decline{Reason::scale_not_invertible, readers.front().user,
                     "what reads the value too can't be divided by a scale of 0"};
    }
    stretch_ = std::max(stretch_, algebra::stretch(step.affine));
    const Step inverse{step.value, algebra::inverse(step.affine), Way::forward, {nullptr, 0}, std::nullopt, /*alone=*/false};
    for (const jit::Use& use : readers) {
      if (const auto decline = go_into(use, inverse, /*alone=*/false)) return decline;
    }
    return std::nullopt;
  }

  std::optional<Decline> go_on(const Step& step) {
    if (rescales_ && !missed_.insert(step.value).second) {
      return Decline{Reason::value_has_other_readers, step.value->node(), "two values that need each other's scale meet"};
    }
    std::vector<jit::Use> readers;
    for (const jit::Use& use : step.value->uses()) {
      if (!reads_metadata_only(use.user, step.value)) readers.push_back(use);
    }
    for (const jit::Use& use : readers) {
      const bool alone = step.alone && readers.size() == 1;
      if (const auto decline = go_into(use, step, alone)) return decline;
    }
    return std::nullopt;
  }

  std::optional<Decline> go_into(const jit::Use& use, const Step& step, bool alone) {
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
    if (const auto decline = why_not_of_rank(step)) return decline;
    if (const auto decline = why_not_written(node)) return decline;
    const bool in_place = writes_into(node, step.value);
    if (in_place && (!alone || node->owningBlock() != step.value->node()->owningBlock())) {
      return Decline{Reason::value_changed_in_place, node, fmt::format("by {}", node->kind().toQualString())};
    }
    if (const auto decline = why_not_viewed(node)) return decline;
    const Rule* rule = rule_for(node);
    if (rule == nullptr || rule->forward == nullptr) {
      return Decline{Reason::no_rule_for_operator, node, fmt::format("before {}", node->kind().toQualString())};
    }
    const Answer answer = rule->forward({node, use.offset, step.affine, norm_.dtype, norm_.along_channels, known_, plan_.edits});
    if (const auto* decline = std::get_if<Decline>(&answer)) return *decline;
    readers_.push_back(node);
    if (const auto* absorb = std::get_if<Absorb>(&answer)) {
      take(*absorb);
      return std::nullopt;
    }
    const Pass& pass = std::get<Pass>(answer);
    const bool replaced = std::any_of(pass.edits.begin(), pass.edits.end(), [node](const Edit& edit) {
      const auto* bound = std::get_if<Bound>(&edit);
      return bound != nullptr && bound->node == node;
    });
    if (const auto decline = take(pass, {node, use.offset}, Way::forward, std::nullopt, alone || !may_return_its_input(node))) {
      return decline;
    }
    // Last, since it makes another node of this one.
    if (in_place && !replaced && !owns_input_) plan_.edits.push_back(Detach{node});
    return std::nullopt;
  }

  void take(const Absorb& absorb) {
    plan_.edits.insert(plan_.edits.end(), absorb.edits.begin(), absorb.edits.end());
    if (std::find(into_.begin(), into_.end(), absorb.into) == into_.end()) into_.push_back(absorb.into);
  }

  std::optional<Decline> take(const Pass& pass, const jit::Use& passed, Way way, const std::optional<Order>& order, bool alone) {
    jit::Node* node = passed.user;
    passed_.push_back(node);
    if (!pass.edits.empty() && !edited_.insert(node).second) {
      return Decline{Reason::value_has_other_readers, node, fmt::format("{} is passed twice", node->kind().toQualString())};
    }
    plan_.edits.insert(plan_.edits.end(), pass.edits.begin(), pass.edits.end());
    for (const Move& move : pass.moves) {
      if (is_neutral(move.affine)) continue;
      if (move.way == Way::forward) {
        miss(move.value, move.affine, alone);
        continue;
      }
      if (way == Way::forward) stretch_ = std::max(stretch_, algebra::stretch(move.affine));
      want(move.value, move.affine, passed, order);
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

  std::optional<Decline> why_not_of_rank(const Step& step) const {
    if (known_.ranks.allow(step.value, step.affine.rank())) return std::nullopt;
    return Decline{Reason::rank_unknown, step.value->node(),
                   fmt::format("a value of rank {} where {} was expected", *known_.ranks.of(step.value), step.affine.rank())};
  }

  // What `node` writes in place must be memory that nobody else reads: it changes with the affine.
  std::optional<Decline> why_not_written(const jit::Node* node) const {
    for (const jit::Value* written : node->inputs()) {
      if (!writes_into(node, written)) continue;
      const jit::Node* reader = node;
      while (true) {
        const jit::Node* producer = written->node();
        const bool own = producer->kind().is_aten() && !is_in_loop_behind(reader, producer);
        if (!own || !other_readers(written, {const_cast<jit::Node*>(reader), 0}).empty()) {
          return Decline{Reason::value_changed_in_place, node, fmt::format("by {}", node->kind().toQualString())};
        }
        if (!may_return_its_input(producer)) break;
        written = producer->input(0);
        reader = producer;
      }
    }
    return std::nullopt;
  }

  // Whether the memory of the norm's input is free to be written once the norm is gone.
  bool owns_input() const {
    const jit::Node* producer = norm_.input()->node();
    return producer->kind().is_aten() && !may_return_its_input(producer) && !is_in_loop_behind(norm_.node(), producer) &&
           other_readers(norm_.input(), {norm_.node(), norm_.input_place}).empty();
  }

  // Where the norm's input has other readers, whatever writes into the norm's output would write into what they read. On the way forward
  // each writer is met.
  std::optional<Decline> why_not_written_behind() const {
    if (owns_input_ || !rescales_) return std::nullopt;
    const Writers writers = writers_of(norm_.node()->output(0), norm_.node());
    if (writers.nodes.empty() && !writers.unknown) return std::nullopt;
    const jit::Node* writer = writers.nodes.empty() ? norm_.node() : writers.nodes.front();
    return Decline{Reason::value_changed_in_place, writer, "it writes into the normalized value, in whose place others read"};
  }

  // The readers of the norm's output will read its input: whatever writes into that must not come between.
  std::optional<Decline> why_not_replaceable() {
    writers_ = writers_of(norm_.input(), norm_.node());
    if (!writers_.unknown) return std::nullopt;
    return Decline{Reason::value_in_container, norm_.node(), "the norm's input goes where it could be changed unseen"};
  }

  // Bounds stand beside the norm, so that nothing before it can become one.
  std::optional<Decline> why_not_bounded() const {
    bool bounded = false;
    for (const Edit& edit : plan_.edits) {
      const auto* bound = std::get_if<Bound>(&edit);
      if (bound == nullptr) continue;
      bounded = true;
      if (bound->node->isDominatedBy(norm_.node())) continue;
      return Decline{Reason::scale_not_positive, bound->node,
                     fmt::format("{} before the norm would have to become a bound", bound->node->kind().toQualString())};
    }
    return bounded ? why_not_bounded_in_dtype() : std::nullopt;
  }

  // Bounds have the norm's dtype, and so must the value, which the layers that take the affine tell.
  std::optional<Decline> why_not_bounded_in_dtype() const {
    bool told = false;
    for (const Edit& edit : plan_.edits) {
      const auto* set = std::get_if<SetInput>(&edit);
      const bool number = set != nullptr && set->tensor.dim() == 0;  // which takes the dtype of what it is added to
      if (set == nullptr || number) continue;
      told |= is_layer(set->node);
      if (set->tensor.scalar_type() == norm_.dtype) continue;
      return Decline{Reason::dtypes_differ, set->node, "a norm in another dtype than its input can't become a bound"};
    }
    if (told || dtype_of(norm_.input(), known_.store) == norm_.dtype) return std::nullopt;
    return Decline{Reason::dtypes_differ, norm_.node(), "nothing tells whether its input has the norm's dtype, as a bound will"};
  }

  // batch_norm may be wider than its input, and then its output is as narrow as that. A sum or product of narrow and wide values is wide,
  // where what goes into a narrow layer would be cut off.
  std::optional<Decline> why_not_in_dtype() const {
    const bool told_by_layers = readers_.empty() && std::none_of(plan_.edits.begin(), plan_.edits.end(), is_of_a_norm);
    if (!norm_.along_channels && !told_by_layers && dtype_of(norm_.input(), known_.store) != norm_.dtype) {
      return Decline{Reason::dtypes_differ, norm_.node(), "nothing tells whether its input has the dtype of its constants"};
    }
    for (const Edit& edit : plan_.edits) {
      const auto* set = std::get_if<SetInput>(&edit);
      if (set == nullptr || !is_layer(set->node) || !set->node->isBefore(norm_.node())) continue;
      const at::ScalarType dtype = set->tensor.scalar_type();
      if (dtype == norm_.dtype || dtype_of(norm_.input(), known_.store) == dtype) continue;
      return Decline{Reason::dtypes_differ, set->node, "the norm may read a wider value than this layer makes"};
    }
    return std::nullopt;
  }

  // Values that are divided by scales, which the module never had, may take up a quarter of the exponents of the narrowest dtype.
  std::optional<Decline> why_not_in_range() const {
    at::ScalarType dtype = norm_.dtype;
    for (const Edit& edit : plan_.edits) {
      const auto* set = std::get_if<SetInput>(&edit);
      if (set != nullptr && set->tensor.scalar_type() == at::kHalf) dtype = at::kHalf;
    }
    const double most = dtype == at::kHalf ? 0x1p4 : dtype == at::kDouble ? 0x1p256 : 0x1p32;
    if (stretch_ <= most) return std::nullopt;
    return Decline{Reason::scale_not_invertible, norm_.node(),
                   fmt::format("other values would be scaled by up to {:.1e}, too much for {}", stretch_, toString(dtype))};
  }

  // batch_norm makes a permuted or sliced input dense, as view needs it.
  std::optional<Decline> why_not_viewed(const jit::Node* node) const {
    if (node->kind() != jit::aten::view || is_dense(norm_.input())) return std::nullopt;
    return Decline{Reason::memory_order_unknown, node, "a view of what may be permuted in memory"};
  }

  std::optional<Decline> why_not_in_time() const {
    for (const jit::Node* writer : writers_.nodes) {
      if (writer->isBefore(norm_.nodes.front())) continue;
      // In a loop, what comes later comes before the next round.
      const bool in_order = writer->owningBlock() == norm_.node()->owningBlock();
      for (const jit::Node* reader : readers_) {
        if (writer == reader || (in_order && writer->isAfter(reader))) continue;
        return Decline{Reason::value_changed_in_place, writer, fmt::format("by {}", writer->kind().toQualString())};
      }
    }
    return std::nullopt;
  }

  const Norm& norm_;
  const Knowledge known_;
  const bool rescales_;  // whether others that read a value may be given its scale back
  const bool owns_input_;
  Plan plan_{};
  std::vector<Step> steps_;
  Writers writers_;
  std::vector<std::string> into_;
  std::vector<const jit::Node*> passed_;
  std::vector<const jit::Node*> readers_;         // of what stands in the place of the norm's output, and of what was rescaled
  double stretch_ = 1;                            // the largest factor by which a value is rescaled
  std::unordered_set<const jit::Value*> wanted_;  // values that were reached backward
  std::unordered_set<const jit::Value*> missed_;  // values that were reached forward
  std::unordered_set<const jit::Node*> edited_;   // nodes that let pass only with an edit
};

}  // namespace

Attempted search(const Norm& norm, const Knowledge& known, bool rescales, const std::optional<algebra::Affine>& backward,
                 const std::optional<algebra::Affine>& forward) {
  Search search(norm, known, rescales);
  if (const auto decline = search.run(backward, forward)) return {*decline, search.passed()};
  return {search.take_plan(), search.passed()};
}

}  // namespace bnfold
