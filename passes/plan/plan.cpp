#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "plan/conditions.h"
#include "plan/search.h"
#include "plan/sideways.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

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
  if (algebra::has_zero_scale(affine)) {
    all.push_back({"zero scales backward, the rest forward", Direction::forward, algebra::mask_of(affine),
                   algebra::without_zero_scales(affine)});
  }
  return all;
}

// What the graph tells one attempt to fold a norm.
struct Asked {
  Asked(const Norm& norm, const ParameterStore& store, const Ranks& all_ranks, bool rescales = false)
      : ranks(all_ranks, norm.node()->owningBlock(), rescales), extents(store, ranks), known{store, ranks, extents} {}

  AskedRanks ranks;
  Extents extents;
  Knowledge known;
};

// A norm that is to be folded.
struct Subject {
  const Norm& norm;
  const algebra::Affine affine;
  const ParameterStore& store;
  const Ranks& ranks;
  const bool rank_known;
  const std::vector<AskedRanks::Need> needs;  // without which `affine` is not what the norm computes
  const TargetTraits& target;
};

// Whether a layer before the norm may write what the norm writes: into memory of its own, which the norm alone reads.
bool may_be_made_before(const Norm& norm) {
  return operator_of(norm.input()->node()).storage == Storage::fresh && is_only_reader(norm.node(), norm.input());
}

bool has_bound(const Plan& plan) {
  return std::any_of(plan.edits.begin(), plan.edits.end(), [](const Edit& edit) { return std::holds_alternative<Bound>(edit); });
}

// The plan with the checks of what nothing proves, or why that can't be done.
std::variant<Plan, Decline> checked(const Subject& subject, Plan found, Direction direction, const Asked& asked) {
  std::vector<AskedRanks::Need> all;
  const bool any_rank = direction == Direction::backward && is_of_any_rank(subject.norm.input(), subject.affine);
  if (!any_rank || !subject.norm.along_channels) all = subject.needs;
  all.insert(all.end(), asked.ranks.needs().begin(), asked.ranks.needs().end());
  auto checks = plan_checks(subject.norm, all, subject.ranks);
  if (const auto* decline = std::get_if<Decline>(&checks)) return *decline;
  if (subject.target.runs_checks && !subject.ranks.are_in_types()) {
    found.checks = std::get<std::vector<RankCheck>>(std::move(checks));
  } else if (auto decline = why_not_unchecked(std::get<std::vector<RankCheck>>(checks), subject.ranks)) {
    return *decline;
  }
  found.direction = direction;
  found.layout = std::max(found.layout, layout_made_by(subject.norm));
  return found;
}

// What a layer made in the place of the norm lies as the norm's input does.
void give_layout(Attempted& attempted, const Subject& subject) {
  auto* found = std::get_if<Plan>(&attempted.outcome);
  if (found == nullptr) return;
  const auto layout = layout_of_input(subject.norm, subject.rank_known ? std::optional(subject.affine.rank()) : std::nullopt);
  if (const auto* decline = std::get_if<Decline>(&layout)) {
    attempted.outcome = *decline;
  } else {
    found->layout = std::max(found->layout, std::get<Layout>(layout));
  }
}

struct Tried {
  std::variant<Plan, Decline> outcome;
  std::vector<const jit::Node*> passed;
};

Tried try_turns(const Subject& subject, const Strategy& strategy, bool rescales, Turns& turns) {
  const Asked asked(subject.norm, subject.store, subject.ranks, rescales);
  Attempted attempted = search(subject.norm, asked.known, rescales, strategy.backward, strategy.forward, turns);
  turns = attempted.turns;
  if (strategy.backward) give_layout(attempted, subject);
  if (const auto* stopped = std::get_if<Decline>(&attempted.outcome)) return {*stopped, attempted.passed};
  if (!subject.rank_known) {
    if (auto decline = why_not_of_unknown_rank(attempted.passed, strategy.direction)) return {*decline, attempted.passed};
  }
  return {checked(subject, std::get<Plan>(std::move(attempted.outcome)), strategy.direction, asked), attempted.passed};
}

// Takes the first turns that lead to a fold; where none do, tells what stopped the first ones. Each product has two, and a row of many
// products more than can be tried.
Tried try_strategy(const Subject& subject, const Strategy& strategy, bool rescales) {
  constexpr int kMost = 64;
  std::optional<Tried> first;
  std::optional<Turns> turns = Turns();
  for (int attempts = 0; turns && attempts < kMost; ++attempts) {
    Tried tried = try_turns(subject, strategy, rescales, *turns);
    if (std::holds_alternative<Plan>(tried.outcome)) return tried;
    if (!first) first = std::move(tried);
    turns = next(std::move(*turns));
  }
  return *first;
}

std::optional<Plan> try_sideways(const Subject& subject) {
  const Asked asked(subject.norm, subject.store, subject.ranks);
  auto plan = plan_sideways(subject.norm, subject.affine, asked.known);
  if (!plan) return std::nullopt;
  const auto outcome = checked(subject, std::move(*plan), Direction::sideways, asked);
  return std::holds_alternative<Plan>(outcome) ? std::optional<Plan>(std::get<Plan>(outcome)) : std::nullopt;
}

// Constants of the last dimension behind a linear layer go into it whatever the rank is, and no check is needed.
std::optional<Plan> try_along_last(const Norm& norm, const ParameterStore& store, const Ranks& ranks,
                                   const TargetTraits& target) {
  if (norm.along_channels || norm.reader != nullptr) return std::nullopt;
  const Subject subject{norm, norm.affine(1), store, ranks, /*rank_known=*/false, {}, target};
  if (!is_along_last(norm.input(), subject.affine)) return std::nullopt;
  const Tried tried = try_strategy(subject, {"backward", Direction::backward, subject.affine, std::nullopt}, /*rescales=*/false);
  const auto* found = std::get_if<Plan>(&tried.outcome);
  return found != nullptr ? std::optional<Plan>(*found) : std::nullopt;
}

// The plan that costs least; adds to `refusal` what stood in the ways that were tried.
std::optional<Plan> cheapest_plan(const Subject& subject, bool rescales, Refusal& refusal) {
  std::optional<Plan> best;
  const Costs& costs = subject.target.costs;
  const auto consider = [&](const Plan& found) {
    if (!best || found.cost(costs) < best->cost(costs)) best = found;
    return best->cost(costs) <= 0;
  };
  for (const Strategy& strategy : strategies(subject.affine)) {
    if (subject.target.only_backward && strategy.direction != Direction::backward) {
      refusal.attempts.push_back(
          {strategy.name, {}, {Reason::widens_channels, subject.norm.node(), "other layers would take its scales"}});
      break;
    }
    const Tried tried = try_strategy(subject, strategy, rescales);
    if (const auto* decline = std::get_if<Decline>(&tried.outcome)) {
      const std::string way = strategy.name + (rescales ? ", other readers rescaled" : "");
      if (!rescales || !refusal.names(*decline)) refusal.attempts.push_back({way, tried.passed, *decline});
    } else if (consider(std::get<Plan>(tried.outcome))) {
      return best;
    }
    if (strategy.direction != Direction::backward || !subject.rank_known || rescales || subject.target.only_backward) continue;
    const auto sideways = try_sideways(subject);
    if (sideways && consider(*sideways)) return best;
  }
  return best;
}

std::optional<Decline> why_not_worth_it(const Plan& plan, const Norm& norm, Target target) {
  const Costs& costs = traits_of(target).costs;
  const double spared = has_bound(plan) ? costs.norm_before_activation : costs.norm;
  if (plan.cost(costs) <= spared) return std::nullopt;
  return Decline{Reason::cheaper_kept, norm.node(),
                 fmt::format("in {} the fold would add what takes {:.1f} times as long as the norm", name(target),
                             plan.cost(costs) / spared)};
}

}  // namespace

double Plan::cost(const Costs& costs) const {
  double cost = layout == Layout::same ? 0 : costs.step;
  for (const Edit& edit : edits) {
    if (std::holds_alternative<AddToOutput>(edit)) cost += costs.step;
    if (std::holds_alternative<Replace>(edit)) cost -= costs.step;
    if (const auto* bound = std::get_if<Bound>(&edit)) {
      cost += bound->lower.defined() && bound->upper.defined() ? costs.both_bounds : costs.bound;
    }
  }
  return cost;
}

bool Refusal::names(const Decline& decline) const {
  return std::any_of(attempts.begin(), attempts.end(), [&decline](const Attempt& attempt) {
    return attempt.decline.reason == decline.reason && attempt.decline.node == decline.node;
  });
}

std::variant<Plan, Refusal> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks, Target target) {
  Refusal refusal;
  const auto refused = [&](Decline decline) {
    refusal.attempts.push_back({"norm", {}, std::move(decline)});
    return refusal;
  };
  if (const auto* decline = std::get_if<Decline>(&norm.content)) return refused(*decline);
  if (auto decline = why_not_written(norm.input(), store)) return refused(std::move(*decline));
  if (auto decline = why_not_written(norm.node()->output(0), store); decline && !may_be_made_before(norm)) {
    return refused(std::move(*decline));
  }
  if (ranks.change_in_place()) {
    return refused({Reason::rank_unknown, norm.node(), "the module adds or drops dimensions in place"});
  }
  const TargetTraits& traits = traits_of(target);
  if (const auto found = try_along_last(norm, store, ranks, traits)) return *found;
  const auto known_rank = ranks.of(norm.input(), norm.node()->owningBlock());
  const auto rank = known_rank ? std::optional<int64_t>(known_rank->number) : std::nullopt;
  if (rank && *rank < 2) return refused({Reason::rank_unknown, norm.node(), fmt::format("the norm's input has rank {}", *rank)});
  // Rank 2 is the one at which a linear layer can take a norm. Where an example was given it may be another in that very run.
  if (!rank && (ranks.has_hints() || !norm.along_channels)) {
    return refused({Reason::rank_unknown, norm.node(), "the ranks of the module's inputs don't tell that of the norm's input"});
  }
  if (!norm.allows(rank)) {
    return refused({Reason::rank_unknown, norm.node(), "its branches are one norm for other ranks of its input only"});
  }
  if (is_convolution(norm.input()->node()) && ranks.is_unbatched(norm.input())) {
    // TorchScript takes the rank of a convolution's output for that with a batch; whoever asks for it behind the norm would be told so.
    return refused({Reason::input_not_batched, norm.node(), "the convolution before it has no batch dimension"});
  }
  const algebra::Affine affine = norm.affine(rank.value_or(2));
  if (rank && affine.rank() != *rank) {
    return refused({Reason::rank_unknown, norm.node(), "its constants have more dimensions than its input"});
  }
  const Asked asked(norm, store, ranks);
  asked.ranks.allow(norm.input(), affine.rank());
  if (!norm.along_channels && !asked.extents.fit(norm.input(), affine)) {
    return refused({Reason::sizes_unknown, norm.node(), "its input may be broadcast to the size of its constants"});
  }
  const Subject subject{norm, affine, store, ranks, rank.has_value(), asked.ranks.needs(), traits};
  auto best = cheapest_plan(subject, /*rescales=*/false, refusal);
  if (!best && rank && !traits.only_backward) best = cheapest_plan(subject, /*rescales=*/true, refusal);
  if (!best) return refusal;
  if (auto decline = why_not_worth_it(*best, norm, target)) {
    refusal.attempts.insert(refusal.attempts.begin(), {std::string(name(best->direction)), {}, std::move(*decline)});
    return refusal;
  }
  return *best;
}

}  // namespace bnfold
