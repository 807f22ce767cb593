#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/operators.h"
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
};

// The plan that leaves the fewest nodes; adds to `refusal` what stood in the ways that were tried.
std::optional<Plan> cheapest_plan(const Subject& subject, bool rescales, Refusal& refusal) {
  const auto& [norm, affine, store, ranks, rank_known, needs] = subject;
  std::optional<Plan> best;
  // Adds the checks of what nothing proves, or tells why that can't be done.
  const auto consider = [&best, &subject](Plan found, Direction direction, const Asked& asked) -> std::optional<Decline> {
    std::vector<AskedRanks::Need> all = subject.needs;
    all.insert(all.end(), asked.ranks.needs().begin(), asked.ranks.needs().end());
    auto checks = plan_checks(subject.norm, all, subject.ranks);
    if (const auto* decline = std::get_if<Decline>(&checks)) return *decline;
    found.checks = std::get<std::vector<RankCheck>>(std::move(checks));
    found.direction = direction;
    if (!best || found.added_nodes() < best->added_nodes()) best = std::move(found);
    return std::nullopt;
  };
  for (const Strategy& strategy : strategies(affine)) {
    const Asked asked(norm, store, ranks, rescales);
    Attempted attempted = search(norm, asked.known, rescales, strategy.backward, strategy.forward);
    std::optional<Decline> decline = rank_known ? std::nullopt : why_not_of_unknown_rank(attempted.passed, strategy.direction);
    if (const auto* stopped = std::get_if<Decline>(&attempted.outcome)) decline = *stopped;
    if (!decline) decline = consider(std::get<Plan>(std::move(attempted.outcome)), strategy.direction, asked);
    if (decline && !rescales) {
      refusal.attempts.push_back({strategy.name, attempted.passed, *decline});
    } else if (decline && !refusal.names(*decline)) {
      refusal.attempts.push_back({strategy.name + ", other readers rescaled", attempted.passed, *decline});
    }
    if (best && best->added_nodes() <= 0) return best;
    if (strategy.direction == Direction::backward && rank_known && !rescales) {
      const Asked aside(norm, store, ranks);
      if (auto plan = plan_sideways(norm, affine, aside.known)) consider(std::move(*plan), Direction::sideways, aside);
      if (best && best->added_nodes() <= 0) return best;
    }
  }
  return best;
}

}  // namespace

int64_t Plan::added_nodes() const {
  int64_t count = needs_contiguous || needs_copy ? 1 : 0;
  for (const Edit& edit : edits) {
    if (std::holds_alternative<AddToOutput>(edit)) ++count;
    if (std::holds_alternative<Replace>(edit)) --count;
    if (const auto* bound = std::get_if<Bound>(&edit)) count += bound->lower.defined() && bound->upper.defined() ? 1 : 0;
  }
  return count;
}

bool Refusal::names(const Decline& decline) const {
  return std::any_of(attempts.begin(), attempts.end(), [&decline](const Attempt& attempt) {
    return attempt.decline.reason == decline.reason && attempt.decline.node == decline.node;
  });
}

std::variant<Plan, Refusal> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks) {
  Refusal refusal;
  const auto refused = [&](Decline decline) {
    refusal.attempts.push_back({"norm", {}, std::move(decline)});
    return refusal;
  };
  if (const auto* decline = std::get_if<Decline>(&norm.content)) return refused(*decline);
  // What is written in place though the graph was made functional is memory that others may see.
  for (const jit::Value* value : {norm.input(), norm.node()->output(0)}) {
    const auto& writers = store.memory().writers_of(value);
    if (writers.empty()) continue;
    return refused(
        {Reason::value_changed_in_place, writers.front(), fmt::format("by {}", writers.front()->kind().toQualString())});
  }
  if (ranks.change_in_place()) {
    return refused({Reason::rank_unknown, norm.node(), "the module adds or drops dimensions in place"});
  }
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
  const Subject subject{norm, affine, store, ranks, rank.has_value(), asked.ranks.needs()};
  auto best = cheapest_plan(subject, /*rescales=*/false, refusal);
  if (!best && rank) best = cheapest_plan(subject, /*rescales=*/true, refusal);
  if (!best) return refusal;
  return *best;
}

}  // namespace bnfold
