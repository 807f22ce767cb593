#include "fuse/facts.h"

#include <fmt/format.h>

#include <algorithm>

#include "fuse/facts_reader.h"
#include "graph/raise_if.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Where all that is known of `value` can be read first in `block`.
jit::Node* first_in(const jit::Value* value, jit::Block* block) {
  const jit::Node* producer = value->node();
  if (producer->kind() != jit::prim::Param && producer->owningBlock() == block) return producer->next();
  return block->param_node()->next();
}

// Whether `block` is `outer` or lies in it.
bool is_within(const jit::Block* block, const jit::Block* outer) {
  while (block != outer && block->owningNode() != nullptr) block = block->owningNode()->owningBlock();
  return block == outer;
}

void insert_check(jit::Value* value, int64_t rank, jit::Block* block) {
  TORCH_INTERNAL_ASSERT(value != nullptr);
  jit::Graph& graph = *value->owningGraph();
  const jit::WithInsertPoint first(first_in(value, block));
  jit::Value* dimensions = graph.insertNode(graph.create(jit::aten::dim, {value}))->output()->setType(c10::IntType::get());
  jit::Value* differs = graph.insertNode(graph.create(jit::aten::ne, {dimensions, graph.insertConstant(rank)}))->output();
  insert_raise_if(
      graph, differs->setType(c10::BoolType::get()),
      fmt::format("this module was optimized for values of rank {0}, and these inputs give one of another rank; optimize "
                  "the original module with example inputs of that rank",
                  rank));
}

}  // namespace

Facts::Facts(const jit::Graph& graph, Observations observed) : observed_(std::move(observed)) {
  FactsReader(*this).read(graph);
}

const std::vector<int64_t>* Facts::example_of(const jit::Value* value) const {
  const auto found = observed_.find(value);
  return found != observed_.end() ? &found->second : nullptr;
}

std::optional<int64_t> Facts::rank_of(const jit::Value* value) const {
  const SizeList& sizes = facts_.of(value).sizes;
  return sizes ? std::optional<int64_t>(sizes->size()) : std::nullopt;
}

std::optional<int64_t> Facts::size_of(const jit::Value* value, int64_t dimension) const {
  const auto rank = rank_of(value);
  return rank && dimension < *rank ? sizes_->number(facts_.of(value).sizes->at(dimension)) : std::nullopt;
}

bool Facts::have_one_size(const jit::Value* one, const jit::Value* other, int64_t dimension) const {
  const auto rank = rank_of(one);
  return rank && rank_of(other) == rank && dimension < *rank &&
         facts_.of(one).sizes->at(dimension) == facts_.of(other).sizes->at(dimension);
}

bool Facts::have_one_size(const jit::Value* one, const jit::Value* other) const {
  return rank_of(one) && rank_of(other) && facts_.of(one).sizes == facts_.of(other).sizes;
}

bool Facts::have_one_dtype(const jit::Value* one, const jit::Value* other) const {
  const int number = facts_.of(one).dtype.number;
  return number >= 0 && number == facts_.of(other).dtype.number;
}

bool Facts::is_inexact(const jit::Value* value) const {
  return facts_.of(value).dtype.inexact;
}

void Facts::replace(const jit::Value* old, jit::Value* value) {
  for (Assumption& assumption : assumptions_) {
    if (assumption.value == old) assumption.value = value;
  }
  facts_.move(old, value);
  auto observed = observed_.extract(old);
  if (!observed.empty()) observed_.insert_or_assign(value, std::move(observed.mapped()));
}

void Facts::forget(const jit::Value* value) {
  for (Assumption& assumption : assumptions_) {
    if (assumption.value == value) assumption.value = nullptr;
  }
  facts_.erase(value);
  observed_.erase(value);
}

void Facts::rely_on_sizes(const jit::Value* value, jit::Block* block) {
  for (const size_t place : facts_.of(value).assumed) relied_on_.emplace(place, block);
}

void Facts::rely_on_dtype(const jit::Value* value, jit::Block* block) {
  for (const size_t place : facts_.of(value).assumed_for_dtype) relied_on_.emplace(place, block);
}

void Facts::insert_checks() {
  for (const auto& [place, block] : relied_on_) {
    const bool is_checked_outside =
        std::any_of(relied_on_.begin(), relied_on_.end(), [&, place = place, block = block](const auto& other) {
          return other.first == place && other.second != block && is_within(block, other.second);
        });
    if (!is_checked_outside) insert_check(assumptions_[place].value, assumptions_[place].rank, block);
  }
  relied_on_.clear();
}

}  // namespace bnfold
