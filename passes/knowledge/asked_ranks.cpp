#include "knowledge/asked_ranks.h"

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

std::optional<int64_t> AskedRanks::of(const jit::Value* value) const {
  const auto rank = ranks_.of(value, block_of(value));
  if (!rank) return std::nullopt;
  if (rank->strength != Strength::proven) need(value, rank->number);
  return rank->number;
}

bool AskedRanks::allow(const jit::Value* value, int64_t rank) const {
  const auto known = ranks_.of(value, block_of(value));
  if (known && known->number != rank) return false;
  if (!known || known->strength != Strength::proven) need(value, rank);
  return true;
}

bool AskedRanks::is_at_most(const jit::Value* value, int64_t most) const {
  if (ranks_.is_at_most(value, block_of(value), most)) return true;
  const auto rank = of(value);
  return rank && *rank <= most;
}

const jit::Block* AskedRanks::block_of(const jit::Value* value) const {
  const jit::Block* own = value->node()->owningBlock();
  return !rescales_ && is_inside(block_, own) ? block_ : own;
}

void AskedRanks::need(const jit::Value* value, int64_t rank) const {
  const auto is_same = [&](const Need& other) { return other.value == value && other.rank == rank; };
  if (std::none_of(needs_.begin(), needs_.end(), is_same)) needs_.push_back({value, block_of(value), rank});
}

}  // namespace bnfold
