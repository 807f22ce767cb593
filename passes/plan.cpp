#include "plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>

#include "memory.h"
#include "operators.h"
#include "sideways.h"

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

// Whether `reader` runs in a loop that `producer` is not in: then each round reads the same memory, and one may write into it.
bool is_in_loop_behind(const jit::Node* reader, const jit::Node* producer) {
  for (const jit::Block* block = reader->owningBlock(); block != nullptr && block != producer->owningBlock();
       block = block->owningNode() != nullptr ? block->owningNode()->owningBlock() : nullptr) {
    if (block->owningNode() != nullptr && block->owningNode()->kind() == jit::prim::Loop) return true;
  }
  return false;
}

// Whether `value` surely lies in memory in one of the orders that batch_norm makes.
bool is_dense(const jit::Value* value) {
  static const std::unordered_set<std::string_view> elementwise = {"relu",    "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_",
                                                                   "sigmoid", "tanh",  "silu",  "silu_",  "gelu",     "dropout"};
  const jit::Node* producer = value->node();
  while (producer->kind().is_aten() && elementwise.count(producer->kind().toUnqualString()) != 0) {
    producer = producer->input(0)->node();
  }
  if (!producer->kind().is_aten()) return false;
  const std::string_view operation = producer->kind().toUnqualString();
  const bool layer = operation.find("conv") != std::string_view::npos || operation == "linear" || operation == "addmm" ||
                     operation == "batch_norm" || operation == "contiguous" || operation == "cat";
  return layer || keeps_channels(producer);
}

// Whether the input really has the sizes along which constants vary, and is not broadcast to them.
bool is_broadcast(const jit::Value* input, const algebra::Affine& affine, const Extents& extents) {
  for (int64_t dimension = 0; dimension < affine.rank(); ++dimension) {
    const int64_t size = affine.size_along(dimension);
    if (size != 1 && extents.of(input, dimension) != size) return true;
  }
  return false;
}

// One attempt to fold a norm: moves affines from node to node until every one is absorbed.
class Search {
 public:
  Search(const Norm& norm, const ParameterStore& store, const Ranks& ranks, const Extents& extents)
      : norm_(norm), known_{store, ranks, extents}, owns_input_(owns_input()) {}

  // Whether `backward`, wanted behind the norm's input, and `forward`, missing in its output, can all be absorbed.
  std::optional<Decline> run(const std::optional<algebra::Affine>& backward, const std::optional<algebra::Affine>& forward) {
    if (backward) want(norm_.input(), *backward, {norm_.node(), norm_.input_place}, Order());
    if (forward) {
      if (const auto decline = why_not_replaceable()) return *decline;
      miss(norm_.node()->output(0), *forward, /*alone=*/true);
    }
    while (!steps_.empty()) {
      const Step step = std::move(steps_.back());
      steps_.pop_back();
      const auto decline = step.way == Way::backward ? go_back(step) : go_on(step);
      if (decline) return decline;
    }
    if (const auto decline = why_not_bounded()) return decline;
    if (forward) return why_not_in_time();
    return std::nullopt;
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
    if (const auto decline = why_not_from(step.value, step.from.user)) return *decline;
    if (const auto decline = other_reader(step.value, step.from)) return *decline;
    if (const auto decline = why_not_of_rank(step)) return *decline;
    if (const auto decline = why_not_written(producer)) return *decline;
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
    return take(pass, {producer, step.value->offset()}, order, /*alone=*/true);
  }

  std::optional<Decline> go_on(const Step& step) {
    std::vector<jit::Use> readers;
    for (const jit::Use& use : step.value->uses()) {
      if (!reads_metadata_only(use.user, step.value)) readers.push_back(use);
    }
    for (const jit::Use& use : readers) {
      const bool alone = step.alone && readers.size() == 1;
      if (const auto decline = go_into(use, step, alone)) return *decline;
    }
    return std::nullopt;
  }

  std::optional<Decline> go_into(const jit::Use& use, const Step& step, bool alone) {
    jit::Node* node = use.user;
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
    if (const auto decline = why_not_of_rank(step)) return *decline;
    if (const auto decline = why_not_written(node)) return *decline;
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
    if (in_place && !replaced && !owns_input_) plan_.edits.push_back(Detach{node});
    return take(pass, {node, use.offset}, std::nullopt, alone || !may_return_its_input(node));
  }

  void take(const Absorb& absorb) {
    plan_.edits.insert(plan_.edits.end(), absorb.edits.begin(), absorb.edits.end());
    if (std::find(into_.begin(), into_.end(), absorb.into) == into_.end()) into_.push_back(absorb.into);
  }

  std::optional<Decline> take(const Pass& pass, const jit::Use& passed, const std::optional<Order>& order, bool alone) {
    jit::Node* node = passed.user;
    passed_.push_back(node);
    if (!pass.edits.empty() && !edited_.insert(node).second) {
      return Decline{Reason::value_has_other_readers, node, fmt::format("{} is passed twice", node->kind().toQualString())};
    }
    plan_.edits.insert(plan_.edits.end(), pass.edits.begin(), pass.edits.end());
    for (const Move& move : pass.moves) {
      if (is_neutral(move.affine)) continue;
      if (move.way == Way::backward) want(move.value, move.affine, passed, order);
      if (move.way == Way::forward) miss(move.value, move.affine, alone);
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

  // Who beside `reader` reads the contents of `value`, as a decline.
  std::optional<Decline> other_reader(const jit::Value* value, const jit::Use& reader) const {
    const bool read_by_norm = norm_.is_made_by(reader.user);
    for (const jit::Use& use : value->uses()) {
      if (use.user == reader.user || reads_metadata_only(use.user, value)) continue;
      if (read_by_norm && norm_.is_made_by(use.user)) continue;
      if (use.user->kind() == jit::prim::ListConstruct && only_concatenation(use.user) == reader.user) continue;
      const bool leaves_branch = use.user->kind() == jit::prim::Return && use.user->owningBlock()->owningNode() == reader.user;
      if (leaves_branch && use.offset == reader.offset) continue;
      if (writes_into(use.user, value)) {
        return Decline{Reason::value_changed_in_place, use.user, fmt::format("by {}", use.user->kind().toQualString())};
      }
      const bool returned = use.user->kind() == jit::prim::Return;
      return Decline{Reason::value_has_other_readers, use.user,
                     returned ? "it is also an output" : fmt::format("also read by {}", use.user->kind().toQualString())};
    }
    return std::nullopt;
  }

  std::optional<Decline> why_not_of_rank(const Step& step) const {
    const auto rank = known_.ranks.of(step.value);
    if (!rank || *rank == step.affine.rank()) return std::nullopt;
    return Decline{Reason::rank_unknown, step.value->node(),
                   fmt::format("a value of rank {} where {} was expected", *rank, step.affine.rank())};
  }

  // What `node` writes in place must be memory that nobody else reads: it changes with the affine.
  std::optional<Decline> why_not_written(const jit::Node* node) const {
    for (const jit::Value* written : node->inputs()) {
      if (!writes_into(node, written)) continue;
      const jit::Node* reader = node;
      while (true) {
        const jit::Node* producer = written->node();
        const bool own = producer->kind().is_aten() && !is_in_loop_behind(reader, producer);
        if (!own || other_reader(written, {const_cast<jit::Node*>(reader), 0})) {
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
           !other_reader(norm_.input(), {norm_.node(), norm_.input_place});
  }

  // The readers of the norm's output will read its input: whatever writes into that must not come between.
  std::optional<Decline> why_not_replaceable() {
    writers_ = writers_of(norm_.input(), norm_.node());
    if (!writers_.unknown) return std::nullopt;
    return Decline{Reason::value_in_container, norm_.node(), "the norm's input goes where it could be changed unseen"};
  }

  // Bounds have the norm's dtype, and so must the value, which the layers that take the affine tell.
  std::optional<Decline> why_not_bounded() const {
    const bool bounded =
        std::any_of(plan_.edits.begin(), plan_.edits.end(), [](const Edit& edit) { return std::holds_alternative<Bound>(edit); });
    for (const Edit& edit : plan_.edits) {
      const auto* set = std::get_if<SetInput>(&edit);
      if (!bounded || set == nullptr || set->tensor.scalar_type() == norm_.dtype) continue;
      return Decline{Reason::dtypes_differ, set->node, "a norm in another dtype than its input can't become a bound"};
    }
    return std::nullopt;
  }

  // batch_norm makes a permuted or sliced input dense, as view needs it.
  std::optional<Decline> why_not_viewed(const jit::Node* node) const {
    if (node->kind() != jit::aten::view || is_dense(norm_.input())) return std::nullopt;
    return Decline{Reason::memory_order_unknown, node, "a view of what may be permuted in memory"};
  }

  std::optional<Decline> why_not_in_time() const {
    for (const jit::Node* writer : writers_.nodes) {
      if (writer->isBefore(norm_.node())) continue;
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
  const bool owns_input_;
  Plan plan_{};
  std::vector<Step> steps_;
  Writers writers_;
  std::vector<std::string> into_;
  std::vector<const jit::Node*> passed_;
  std::vector<const jit::Node*> readers_;         // of what stands in the place of the norm's output
  std::unordered_set<const jit::Value*> wanted_;  // values that were reached backward
  std::unordered_set<const jit::Node*> edited_;   // nodes that let pass only with an edit
};

// Forward, rank 2 is no more than a guess for what reshapes or reduces the value.
std::optional<Decline> why_not_of_unknown_rank(const std::vector<const jit::Node*>& passed, Direction direction) {
  for (const jit::Node* node : passed) {
    if (direction == Direction::backward || keeps_sizes(node)) continue;
    return Decline{Reason::rank_unknown, node, "the rank of the norm's input is not known; example inputs tell it"};
  }
  return std::nullopt;
}

// A way to divide an affine into a part that goes backward and one that goes forward.
struct Strategy {
  std::string name;
  Direction direction;
  std::optional<algebra::Affine> backward;
  std::optional<algebra::Affine> forward;
};

// scale * x + shift = scale * (x + shift / scale); a channel of scale 0 keeps its shift in front.
Strategy shift_back(const algebra::Affine& affine) {
  const at::Tensor zero = affine.scale.eq(0);
  const at::Tensor divided = (affine.shift / affine.scale).masked_fill(zero, 0);
  return {"shift backward, scale forward", Direction::forward, algebra::Affine{at::ones_like(affine.scale), divided},
          algebra::Affine{affine.scale, affine.shift.masked_fill(zero.logical_not(), 0)}};
}

std::vector<Strategy> strategies(const algebra::Affine& affine) {
  std::vector<Strategy> all = {{"backward", Direction::backward, affine, std::nullopt},
                               {"forward", Direction::forward, std::nullopt, affine}};
  if (algebra::has_scale(affine) && algebra::has_shift(affine)) {
    all.push_back(shift_back(affine));
    all.push_back(
        {"scale backward, shift forward", Direction::forward, algebra::scale_only(affine), algebra::shift_only(affine)});
  }
  return all;
}

}  // namespace

int64_t Plan::added_nodes() const {
  int64_t count = needs_contiguous ? 1 : 0;
  for (const Edit& edit : edits) {
    if (std::holds_alternative<AddToOutput>(edit)) ++count;
    if (std::holds_alternative<Replace>(edit)) --count;
    if (const auto* bound = std::get_if<Bound>(&edit)) count += bound->lower.defined() && bound->upper.defined() ? 1 : 0;
  }
  return count;
}

std::variant<Plan, Refusal> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks) {
  Refusal refusal;
  const auto refused = [&](Decline decline) {
    refusal.attempts.push_back({"norm", {}, std::move(decline)});
    return refusal;
  };
  if (const auto* decline = std::get_if<Decline>(&norm.content)) return refused(*decline);
  const auto rank = ranks.of(norm.input());
  if (rank && *rank < 2) return refused({Reason::rank_unknown, norm.node(), fmt::format("the norm's input has rank {}", *rank)});
  if (!rank && (ranks.has_hints() || !norm.along_channels)) {
    return refused({Reason::rank_unknown, norm.node(), "the ranks of the module's inputs don't tell that of the norm's input"});
  }
  // Rank 2 is the one at which a linear layer can take a norm.
  const algebra::Affine affine = norm.affine(rank.value_or(2));
  if (rank && affine.rank() != *rank) {
    return refused({Reason::rank_unknown, norm.node(), "its constants have more dimensions than its input"});
  }
  const Extents extents(store, ranks);
  if (!norm.along_channels && is_broadcast(norm.input(), affine, extents)) {
    return refused({Reason::sizes_unknown, norm.node(), "its input may be broadcast to the size of its constants"});
  }
  std::optional<Plan> best;
  const auto consider = [&](Plan found, Direction direction) {
    found.direction = direction;
    if (!ranks.is_certain(norm.input())) found.required_rank = affine.rank();
    if (!best || found.added_nodes() < best->added_nodes()) best = std::move(found);
  };
  for (const Strategy& strategy : strategies(affine)) {
    Search search(norm, store, ranks, extents);
    auto decline = search.run(strategy.backward, strategy.forward);
    if (!decline && !rank) decline = why_not_of_unknown_rank(search.passed(), strategy.direction);
    if (decline) {
      refusal.attempts.push_back({strategy.name, search.passed(), *decline});
    } else {
      consider(search.take_plan(), strategy.direction);
      if (best->added_nodes() <= 0) return *best;
    }
    if (strategy.direction == Direction::backward && rank) {
      if (auto aside = plan_sideways(norm, affine, {store, ranks, extents})) consider(std::move(*aside), Direction::sideways);
      if (best && best->added_nodes() <= 0) return *best;
    }
  }
  if (best) return *best;
  return refusal;
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
