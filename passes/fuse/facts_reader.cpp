#include "fuse/facts_reader.h"

#include <algorithm>

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/graph_walk.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Something resizes a tensor, or may: then no size that is read of the graph is certain.
bool may_resize(const jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&found](const jit::Node* node) {
    for (const jit::Value* input : node->inputs()) {
      found |= is_tensor(input) && writes_into(node, input) && !operator_of(node).in_place;
    }
  });
  return found;
}

bool keeps_rank(const jit::Node* node) {
  return keeps_sizes(node) || keeps_channels(node) || operator_of(node).shape == Shape::padded;
}

// `fact` is made of `other`, and right where that is.
void rest_on(const Fact& other, Fact& fact) {
  fact.assumed.insert(other.assumed.begin(), other.assumed.end());
  fact.assumed_for_dtype.insert(other.assumed_for_dtype.begin(), other.assumed_for_dtype.end());
}

}  // namespace

void FactsReader::read(const jit::Graph& graph) {
  if (may_resize(graph)) return;
  for (const jit::Value* input : graph.inputs()) {
    const auto* example = facts_.example_of(input);
    if (example != nullptr && is_tensor(input)) assume(input, static_cast<int64_t>(example->size()));
  }
  do {
    learned_ = false;
    has_assumed_ = false;
    facts_.facts_.clear();
    ints_.start_again();
    for (const jit::Value* input : graph.inputs()) facts_.facts_.set(input, new_fact(input));
    read(graph.block());
  } while (learned_);
}

void FactsReader::read(const jit::Block* block) {
  for (const jit::Value* input : block->inputs()) facts_.facts_.set(input, new_fact(input));
  for (const jit::Node* node : const_cast<jit::Block*>(block)->nodes()) {
    for (const jit::Block* inner : node->blocks()) read(inner);
    if (node->kind() == jit::prim::fork && node->hasAttribute(jit::attr::Subgraph)) read(node->g(jit::attr::Subgraph)->block());
    read(node);
  }
}

void FactsReader::read(const jit::Node* node) {
  learn(node);
  for (const jit::Value* output : node->outputs()) facts_.facts_.set(output, fact_of(node, output));
}

// Of a value of which nothing is known but what was assumed or learned.
Fact FactsReader::new_fact(const jit::Value* value) {
  Fact fact;
  if (!is_tensor(value)) return fact;
  fact.like = value;
  fact.dtype = dtypes_.of_root(value);
  const auto assumed = assumed_.find(value);
  if (assumed == assumed_.end()) return fact;
  fact.sizes = ints_.unknown_sizes(value, facts_.assumptions_[assumed->second].rank);
  for (size_t i = 0; i < fact.sizes->size(); ++i) {
    SizeId& size = fact.sizes->at(i);
    roots_of_sizes_.emplace(size, std::make_pair(value, i));
    const auto number = learned_sizes_.find({value, i});
    if (number != learned_sizes_.end()) size = sizes_.constant(number->second);
  }
  fact.assumed.insert(assumed->second);
  return fact;
}

Fact FactsReader::fact_of(const jit::Node* node, const jit::Value* output) {
  Fact fact = new_fact(output);
  if (const auto tensor = constant_tensor(output)) {
    fact.sizes = ints_.list(tensor->sizes());
    fact.dtype = dtypes_.of_constant(tensor->scalar_type());
    return fact;
  }
  if (node->kind() == jit::prim::If) return fact_of_branches(node, output);
  for (const jit::Value* input : node->inputs()) rest_on(known(input), fact);
  if (output->offset() != 0 && node->kind() != jit::prim::ListUnpack) return fact;
  if (is_tensor(output)) {
    read_tensor(node, output, fact);
  } else {
    fact.sizes = ints_.list_made_by(node);
  }
  return fact;
}

void FactsReader::read_tensor(const jit::Node* node, const jit::Value* output, Fact& fact) {
  if (auto sizes = shapes_.of(output)) {
    fact.sizes = std::move(sizes);
  } else if (keeps_rank(node)) {
    const Fact& input = known(node->input(0));
    if (input.sizes) fact.sizes = ints_.unknown_sizes(output, input.sizes->size());
    if (!input.sizes && input.like != nullptr) fact.like = input.like;
  }
  fact.dtype = dtypes_.of(node, fact);
}

// What holds whichever branch runs.
Fact FactsReader::fact_of_branches(const jit::Node* node, const jit::Value* output) {
  const Fact& one = known(node->blocks()[0]->outputs()[output->offset()]);
  const Fact& other = known(node->blocks()[1]->outputs()[output->offset()]);
  Fact fact = new_fact(output);
  if (is_checked_within(node, one) || is_checked_within(node, other)) return fact;
  if (one.sizes && one.sizes == other.sizes) fact.sizes = one.sizes;
  if (one.dtype == other.dtype) fact.dtype = one.dtype;
  rest_on(one, fact);
  rest_on(other, fact);
  return fact;
}

// Whether the fact rests on the rank of a value in a branch of `node`, of which nothing can be asked behind it.
bool FactsReader::is_checked_within(const jit::Node* node, const Fact& fact) const {
  const auto is_inner = [&](size_t place) {
    const jit::Block* block = facts_.assumptions_[place].value->node()->owningBlock();
    while (block != nullptr && block->owningNode() != nullptr && block->owningNode() != node)
      block = block->owningNode()->owningBlock();
    return block != nullptr && block->owningNode() == node;
  };
  return std::any_of(fact.assumed.begin(), fact.assumed.end(), is_inner) ||
         std::any_of(fact.assumed_for_dtype.begin(), fact.assumed_for_dtype.end(), is_inner);
}

void FactsReader::learn(const jit::Node* node) {
  learned_ |= dtypes_.learn(node);
  if (is_convolution(node) || operator_of(node).shape == Shape::linear) learn_channels(node);
  if (is_forward_conv(node) || is_transposed_conv(node)) assume_batch(node);
}

void FactsReader::learn_channels(const jit::Node* layer) {
  const auto weight = has_argument(layer, "weight") ? constant_tensor(layer->namedInput("weight")) : std::nullopt;
  const SizeList& sizes = known(layer->input(0)).sizes;
  if (!weight || !sizes) return;
  if (operator_of(layer).shape == Shape::linear) {
    if (weight->dim() != 2 || sizes->empty()) return;
    return learn_size(layer, layer->input(0), sizes->size() - 1, weight->size(1));
  }
  const auto groups = has_argument(layer, "groups") ? constant_int(layer->namedInput("groups")) : std::nullopt;
  if (!groups || static_cast<int64_t>(sizes->size()) != weight->dim()) return;
  if (is_forward_conv(layer)) learn_size(layer, layer->input(0), 1, weight->size(1) * *groups);
  if (is_transposed_conv(layer)) learn_size(layer, layer->input(0), 1, weight->size(0));
}

// What runs whenever `value` is made, and raises where it has another size there.
void FactsReader::learn_size(const jit::Node* reader, const jit::Value* value, size_t dimension, int64_t number) {
  const SizeList& sizes = known(value).sizes;
  const auto found = sizes && dimension < sizes->size() ? roots_of_sizes_.find(sizes->at(dimension)) : roots_of_sizes_.end();
  if (found == roots_of_sizes_.end() || found->second.first->node()->owningBlock() != reader->owningBlock()) return;
  learned_ |= learned_sizes_.emplace(found->second, number).second;
}

// What a convolution reads has the rank of the example, or a batch.
void FactsReader::assume_batch(const jit::Node* conv) {
  const auto weight = constant_tensor(conv->namedInput("weight"));
  const Fact& input = known(conv->input(0));
  if (!weight || input.sizes || input.like == nullptr || has_assumed_) return;
  const auto* example = facts_.example_of(conv->input(0));
  assume(input.like, example != nullptr ? static_cast<int64_t>(example->size()) : weight->dim());
  has_assumed_ = true;
}

void FactsReader::assume(const jit::Value* value, int64_t rank) {
  if (!assumed_.emplace(value, facts_.assumptions_.size()).second) return;
  facts_.assumptions_.push_back({const_cast<jit::Value*>(value), rank});
  learned_ = true;
}

}  // namespace bnfold
