#include "knowledge/rank_classes.h"

#include <algorithm>

namespace bnfold {

namespace jit = torch::jit;

namespace {

const jit::Block* block_around(const jit::Block* block) {
  const jit::Node* owner = block->owningNode();
  return owner == nullptr ? nullptr : owner->owningBlock();
}

std::optional<int64_t> plus(std::optional<int64_t> number, int64_t difference) {
  return number ? std::optional<int64_t>(*number + difference) : std::nullopt;
}

// Whether what `block` runs can read `value`: it is made in there, or in a block around, before.
bool can_read(const jit::Block* block, const jit::Value* value) {
  const jit::Block* own = value->node()->owningBlock();
  const jit::Node* owner = nullptr;
  for (const jit::Block* around = block; around != nullptr; around = block_around(around)) {
    if (around == own) return owner == nullptr || value->node()->isBefore(owner);
    owner = around->owningNode();
  }
  return false;
}

bool is_made_before(const jit::Value* one, const jit::Value* other) {
  if (one->node() == other->node()) return one->offset() < other->offset();
  return one->node()->isBefore(other->node());
}

}  // namespace

std::optional<Rank> RankFacts::rank() const {
  if (least == most) return Rank{least, Strength::proven};
  const auto is_possible = [this](std::optional<int64_t> number) { return number && *number >= least && *number <= most; };
  if (is_possible(hinted)) return Rank{*hinted, Strength::hinted};
  if (is_possible(assumed)) return Rank{*assumed, Strength::assumed};
  return std::nullopt;
}

RankFacts RankFacts::shifted(int64_t difference) const {
  return {least + difference, most + difference, plus(hinted, difference), plus(assumed, difference)};
}

RankClasses::Member RankClasses::member(const jit::Value* value, const jit::Block* block) {
  for (const Member member : members_of_[value]) {
    if (entries_[member].block == block) return member;
  }
  const jit::Block* around = value->node()->owningBlock() == block ? nullptr : block_around(block);
  const auto outer = around != nullptr ? std::optional<Member>(member(value, around)) : std::nullopt;
  const Member member = entries_.size();
  entries_.push_back({value, block, {member, 0}, 1, {}, {}});
  members_of_[value].push_back(member);
  if (outer) {
    entries_[member].outside.push_back({*outer, 0});
    auto& imports = imports_[block];
    if (imports.empty()) importing_.push_back(block);
    imports.push_back({member, *outer});
  }
  return member;
}

void RankClasses::tie(Member one, Member other, int64_t difference) {
  merge(one, other, difference);
}

void RankClasses::narrow(Member member, int64_t least, int64_t most) {
  const auto [top, difference] = root(member);
  RankFacts& facts = entries_[top].facts;
  const int64_t new_least = std::max(facts.least, least - difference);
  const int64_t new_most = std::min(facts.most, most - difference);
  // Where two proofs contradict each other no run gets that far.
  if (new_least > new_most) return;
  facts.least = new_least;
  facts.most = new_most;
}

void RankClasses::learn(Member member, int64_t rank, Strength strength) {
  if (strength == Strength::proven) return narrow(member, rank, rank);
  const auto [top, difference] = root(member);
  auto& known = strength == Strength::hinted ? entries_[top].facts.hinted : entries_[top].facts.assumed;
  if (!known) known = rank - difference;
}

void RankClasses::settle() {
  for (bool changed = true; changed;) {
    changed = join_imports();
    for (const Largest& largest : largest_) changed |= conclude(largest);
    for (const Chosen& chosen : chosen_) changed |= conclude(chosen);
    for (const Product& product : products_) changed |= conclude(product);
    for (const Bounded& bounded : bounded_) changed |= conclude(bounded);
  }
}

RankFacts RankClasses::facts(const jit::Value* value, const jit::Block* block) const {
  const auto found = find(value, block);
  return found ? facts(found->member).shifted(found->difference) : RankFacts();
}

RankClasses::Witness RankClasses::witness(const jit::Value* value, const jit::Block* block) const {
  Witness first{const_cast<jit::Value*>(value), 0};
  const auto consider = [&](const jit::Value* candidate, int64_t difference) {
    const bool tensor = candidate != nullptr && candidate->type()->kind() == c10::TypeKind::TensorType;
    if (!tensor || !can_read(block, candidate) || !is_made_before(candidate, first.value)) return;
    first = Witness{const_cast<jit::Value*>(candidate), difference};
  };
  std::vector<Relation> classes;  // rank(value) = rank(member) + difference
  if (const auto found = find(value, block)) classes.push_back(*found);
  for (size_t i = 0; i < classes.size(); ++i) {
    const auto [top, from_root] = root(classes[i].member);
    const int64_t difference = classes[i].difference + from_root;
    for (Member member = 0; member < entries_.size(); ++member) {
      const Relation relation = root(member);
      if (relation.member == top) consider(entries_[member].value, difference - relation.difference);
    }
    for (const Relation& outer : entries_[top].outside) classes.push_back({outer.member, difference + outer.difference});
  }
  return first;
}

void RankClasses::adopt(const jit::Value* value, const jit::Value* like) {
  if (members_of_.count(value) != 0) return;
  const jit::Block* block = value->node()->owningBlock();
  merge(member(like, block), member(value, block), 0);
}

void RankClasses::forget(const jit::Value* value) {
  const auto found = members_of_.find(value);
  if (found == members_of_.end()) return;
  for (const Member member : found->second) entries_[member].value = nullptr;
  members_of_.erase(found);
}

RankClasses::Relation RankClasses::root(Member member) const {
  int64_t difference = 0;
  while (entries_[member].parent.member != member) {
    difference += entries_[member].parent.difference;
    member = entries_[member].parent.member;
  }
  return {member, difference};
}

// Whether these were two classes.
bool RankClasses::merge(Member one, Member other, int64_t difference) {
  Relation kept = root(one);
  Relation joined = root(other);
  if (kept.member == joined.member) return false;
  // rank(joined) = rank(kept) + larger
  int64_t larger = kept.difference + difference - joined.difference;
  if (entries_[kept.member].size < entries_[joined.member].size) {
    std::swap(kept, joined);
    larger = -larger;
  }
  Entry& top = entries_[kept.member];
  Entry& gone = entries_[joined.member];
  gone.parent = {kept.member, larger};
  top.size += gone.size;
  for (const Relation& outer : gone.outside) {
    const auto is_same = [&](const Relation& known) { return root(known.member).member == root(outer.member).member; };
    if (std::any_of(top.outside.begin(), top.outside.end(), is_same)) continue;
    top.outside.push_back({outer.member, outer.difference - larger});
  }
  gone.outside.clear();
  const RankFacts facts = gone.facts.shifted(-larger);
  narrow(kept.member, facts.least, facts.most);
  if (facts.hinted) learn(kept.member, *facts.hinted, Strength::hinted);
  if (facts.assumed) learn(kept.member, *facts.assumed, Strength::assumed);
  return true;
}

// Whether that tells something new.
bool RankClasses::conclude(const Largest& largest) {
  std::vector<RankFacts> sources;
  RankFacts all{largest.floor, largest.floor, largest.floor, largest.floor};
  std::optional<Rank> rank = Rank{largest.floor, Strength::proven};
  for (const auto& [member, difference] : largest.sources) {
    const RankFacts source = facts(member).shifted(difference);
    sources.push_back(source);
    all.least = std::max(all.least, source.least);
    all.most = std::max(all.most, source.most);
    const auto known = source.rank();
    rank = rank && known ? std::optional<Rank>({std::max(rank->number, known->number), std::max(rank->strength, known->strength)})
                         : std::nullopt;
  }
  const RankFacts before = facts(largest.result);
  narrow(largest.result, all.least, all.most);
  bool changed = before.least != facts(largest.result).least || before.most != facts(largest.result).most;
  if (rank) changed |= learn_anew(largest.result, *rank);
  for (size_t i = 0; i < sources.size(); ++i) {
    const Relation own = root(largest.sources[i].member);
    const auto is_no_larger = [&](size_t other) {
      const Relation its = root(largest.sources[other].member);
      if (sources[i].least >= sources[other].most) return true;
      return own.member == its.member &&
             own.difference + largest.sources[i].difference >= its.difference + largest.sources[other].difference;
    };
    bool wins = sources[i].least >= largest.floor;
    for (size_t other = 0; other < sources.size(); ++other) wins = wins && is_no_larger(other);
    if (!wins && (!largest.alike || sources[i].least < 2)) continue;
    changed |= merge(largest.sources[i].member, largest.result, largest.sources[i].difference);
  }
  return changed;
}

bool RankClasses::conclude(const Chosen& chosen) {
  const auto first = facts(chosen.first).rank();
  const auto second = facts(chosen.second).rank();
  if (first && second && first->number == second->number) {
    return learn_anew(chosen.result, {first->number, std::max(first->strength, second->strength)});
  }
  const auto deciding = chosen.decider ? facts(chosen.decider->value).rank() : std::nullopt;
  if (!deciding) return false;
  const auto taken = (deciding->number == chosen.decider->rank) == chosen.decider->takes_first ? first : second;
  return taken && learn_anew(chosen.result, {taken->number, std::max(taken->strength, deciding->strength)});
}

bool RankClasses::conclude(const Product& product) {
  const auto first = facts(product.first).rank();
  const auto second = facts(product.second).rank();
  if (!first || !second || first->number < 1 || second->number < 1) return false;
  const int64_t vectors = (first->number == 1 ? 1 : 0) + (second->number == 1 ? 1 : 0);
  const int64_t rank = std::max<int64_t>({first->number, second->number, 2}) - vectors;
  return learn_anew(product.result, {rank, std::max(first->strength, second->strength)});
}

bool RankClasses::conclude(const Bounded& bounded) {
  const auto source = facts(bounded.source).rank();
  if (!source || facts(bounded.result).least != source->number + bounded.difference) return false;
  return learn_anew(bounded.result, {source->number + bounded.difference, source->strength});
}

// Whether that tells something new.
bool RankClasses::learn_anew(Member member, const Rank& rank) {
  const RankFacts before = facts(member);
  learn(member, rank.number, rank.strength);
  const RankFacts after = facts(member);
  return before.least != after.least || before.most != after.most || before.hinted != after.hinted ||
         before.assumed != after.assumed;
}

// What has one rank outside has it inside too. Whether there was anything to join.
bool RankClasses::join_imports() {
  bool changed = false;
  for (const jit::Block* block : importing_) {
    std::unordered_map<Member, Import> first;  // by the class outside
    for (const Import& import : imports_.at(block)) {
      const Relation outer = root(import.outer);
      const auto [found, is_new] = first.emplace(outer.member, import);
      if (is_new) continue;
      changed |= merge(found->second.inner, import.inner, outer.difference - root(found->second.outer).difference);
    }
  }
  return changed;
}

RankFacts RankClasses::facts(Member member) const {
  const auto [top, difference] = root(member);
  RankFacts all = entries_[top].facts;
  for (const Relation& outer : entries_[top].outside) {
    const RankFacts others = facts(outer.member).shifted(outer.difference);
    const int64_t least = std::max(all.least, others.least);
    const int64_t most = std::min(all.most, others.most);
    if (least <= most) {
      all.least = least;
      all.most = most;
    }
    if (!all.hinted) all.hinted = others.hinted;
    if (!all.assumed) all.assumed = others.assumed;
  }
  return all.shifted(difference);
}

// The member that tells most of `value` in the runs that reach `block`, and by how much the value's rank is larger.
std::optional<RankClasses::Relation> RankClasses::find(const jit::Value* value, const jit::Block* block) const {
  const auto members = members_of_.find(value);
  if (members == members_of_.end()) return std::nullopt;
  for (const Member member : members->second) {
    if (entries_[member].block == block) return Relation{member, 0};
  }
  const jit::Block* around = block_around(block);
  const auto outer = around != nullptr ? find(value, around) : std::nullopt;
  const auto imports = imports_.find(block);
  if (!outer || imports == imports_.end()) return outer;
  const Relation own = root(outer->member);
  for (const Import& import : imports->second) {
    const Relation its = root(import.outer);
    if (its.member == own.member) return Relation{import.inner, outer->difference + own.difference - its.difference};
  }
  return outer;
}

}  // namespace bnfold
