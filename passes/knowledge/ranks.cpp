#include "knowledge/ranks.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The first output has the rank of the first input.
bool keeps_rank(const jit::Node* node) {
  static const std::unordered_set<std::string> others = {
      "pad", "constant_pad_nd", "t", "transpose", "transpose_", "slice", "narrow", "pixel_shuffle", "pixel_unshuffle"};
  return keeps_sizes(node) || keeps_channels(node) || others.count(node->kind().toUnqualString()) != 0;
}

// What a trace saw.
std::optional<int64_t> rank_of_type(const jit::Value* value) {
  const auto tensor = value->type()->cast<c10::TensorType>();
  if (!tensor || !tensor->dim()) return std::nullopt;
  return static_cast<int64_t>(*tensor->dim());
}

std::optional<int64_t> convolution_rank(const jit::Node* node) {
  static const std::unordered_map<std::string, int64_t> ranks = {
      {"conv1d", 3}, {"conv2d", 4}, {"conv3d", 5}, {"conv_transpose1d", 3}, {"conv_transpose2d", 4}, {"conv_transpose3d", 5}};
  const auto found = ranks.find(node->kind().toUnqualString());
  if (found != ranks.end()) return found->second;
  static const std::unordered_set<std::string> any_rank = {"convolution", "_convolution", "_convolution_mode"};
  if (any_rank.count(node->kind().toUnqualString()) == 0) return std::nullopt;
  // These tell their rank by the length of stride, one entry a spatial dimension.
  const auto stride = jit::toIValue(node->namedInput("stride"));
  if (!stride || !stride->isIntList()) return std::nullopt;
  return static_cast<int64_t>(stride->toIntVector().size()) + 2;
}

std::optional<int64_t> length(const jit::Value* list) {
  if (const auto constant = jit::toIValue(list)) {
    if (constant->isIntList()) return static_cast<int64_t>(constant->toIntVector().size());
    return std::nullopt;
  }
  if (list->node()->kind() == jit::prim::ListConstruct) return static_cast<int64_t>(list->node()->inputs().size());
  return std::nullopt;
}

bool raises(const jit::Block* block) {
  const auto nodes = const_cast<jit::Block*>(block)->nodes();
  return std::any_of(nodes.begin(), nodes.end(), [](const jit::Node* node) { return node->kind() == jit::prim::RaiseException; });
}

bool changes_dimensions_in_place(const jit::Graph& graph) {
  static const std::unordered_set<std::string> names = {"squeeze_",    "unsqueeze_", "resize_",   "resize_as_", "set_",
                                                        "as_strided_", "transpose_", "swapaxes_", "swapdims_",  "t_"};
  bool found = false;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&found](const jit::Node* node) {
    found |= node->kind().is_aten() && names.count(node->kind().toUnqualString()) != 0;
  });
  return found;
}

bool in_aten(const jit::Node* node) {
  return node->kind().is_aten() && !node->inputs().empty() && !node->outputs().empty();
}

}  // namespace

Ranks::Ranks(const jit::Graph& graph, const std::vector<std::optional<int64_t>>& hints, StaticRank static_rank)
    : static_rank_(std::move(static_rank)) {
  for (size_t i = 0; i < hints.size() && i + 1 < graph.inputs().size(); ++i) {
    learn(graph.inputs()[i + 1], hints[i], hinted);
    has_hints_ |= hints[i].has_value();
  }
  types_tell_ = has_hints_ && std::all_of(graph.inputs().begin(), graph.inputs().end(), [this](const jit::Value* input) {
                  const auto traced = rank_of_type(input);
                  return !traced || traced == of(input);
                });
  // A value that changes its dimensions in place has none that could be told; then every rank is checked where it matters.
  if (!changes_dimensions_in_place(graph)) read(graph.block());
}

std::optional<int64_t> Ranks::of(const jit::Value* value) const {
  const auto index = find_root(value);
  if (!index) return std::nullopt;
  for (const auto& rank : known_[*index]) {
    if (rank) return rank;
  }
  return std::nullopt;
}

bool Ranks::is_certain(const jit::Value* value) const {
  const auto index = find_root(value);
  if (!index) return false;
  const Known& ranks = known_[*index];
  return ranks[proven].has_value() || (ranks[hinted].has_value() && ranks[hinted] == ranks[assumed]);
}

bool Ranks::are_one(const jit::Value* value, const jit::Value* other) const {
  const auto index = find_root(value);
  return index && index == find_root(other);
}

bool Ranks::is_unbatched(const jit::Value* value) const {
  const auto index = find_root(value);
  const auto rank = of(value);
  return index && rank && known_[*index][assumed].has_value() && *rank < *known_[*index][assumed];
}

void Ranks::adopt(const jit::Value* value, const jit::Value* like) {
  class_of_[value] = root(like);
}

void Ranks::prove(const jit::Value* value, int64_t rank) {
  learn(value, rank, proven);
}

void Ranks::read(const jit::Block* block) {
  for_each_node(block, [this](const jit::Node* node) { read(node); });
}

void Ranks::read(const jit::Node* node) {
  if (types_tell_) {
    for (const jit::Value* output : node->outputs()) learn(output, rank_of_type(output), hinted);
  }
  if (node->kind() == jit::prim::If) read_check(node);
  if (!in_aten(node)) return;
  const std::string operation = node->kind().toUnqualString();
  const jit::Value* input = node->input(0);
  const jit::Value* output = node->output(0);
  if (const auto rank = convolution_rank(node)) {
    tie(input, output);
    learn(output, rank, assumed);
  } else if (keeps_rank(node)) {
    tie(input, output);
    if (keeps_channels(node)) learn(output, spatial_dimensions(node) + 2, assumed);
  } else if (operation == "addmm" || operation == "mm") {
    learn(output, 2, proven);
  } else if (operation == "view" || operation == "reshape") {
    learn(output, length(node->input(1)), proven);
  } else if (operation == "permute") {
    learn(input, length(node->input(1)), proven);
    tie(input, output);
  } else if (operation == "flatten") {
    const auto first = constant_int(node->input(1));
    const auto last = constant_int(node->input(2));
    if (first && last && *first >= 0 && *last == -1) learn(output, *first + 1, proven);
    if (first && last && *first >= 0 && *last >= *first) learn_from(input, *first - *last, output);
  } else if (operation == "reshape_as" || operation == "view_as" || operation == "expand_as") {
    tie(node->input(1), output);
  } else if (operation == "unsqueeze") {
    learn_from(input, 1, output);
  } else if (operation == "select") {
    learn_from(input, -1, output);
  } else if (operation == "embedding") {
    learn_from(node->input(1), 1, output);
  } else if (operation == "matmul" || operation == "linear") {
    if (static_rank_(node->input(1)) == 2) tie(input, output);
  } else if (operation == "add" || operation == "add_" || operation == "mul" || operation == "mul_" || operation == "sub" ||
             operation == "sub_" || operation == "div" || operation == "div_") {
    read_broadcast(node);
  } else if (operation == "cat" || operation == "concat") {
    const jit::Node* list = input->node();
    if (list->kind() == jit::prim::ListConstruct) {
      for (const jit::Value* part : list->inputs()) tie(part, output);
    }
  } else if (operation == "chunk" || operation == "split" || operation == "split_with_sizes") {
    for (const jit::Use& use : output->uses()) {
      if (use.user->kind() != jit::prim::ListUnpack) continue;
      for (const jit::Value* part : use.user->outputs()) tie(input, part);
    }
  } else if (operation == "mean" || operation == "sum") {
    read_reduction(node);
  }
}

// The larger rank wins; a constant of rank 0 or 1 and a number never do.
void Ranks::read_broadcast(const jit::Node* node) {
  const jit::Value* other = node->input(1);
  const bool number = other->type()->kind() != c10::TypeKind::TensorType;
  const auto constant = number ? std::optional<int64_t>(0) : static_rank_(other);
  const auto first = of(node->input(0));
  const auto second = constant ? constant : of(other);
  const bool never_wins = second == 0 || constant.value_or(2) <= 1;
  if (never_wins || root(node->input(0)) == root(other)) {
    tie(node->input(0), node->output(0));
    return;
  }
  if (first && second) tie(*first >= *second ? node->input(0) : other, node->output(0));
}

void Ranks::read_reduction(const jit::Node* node) {
  if (!has_argument(node, "dim")) return learn(node->output(), 0, proven);
  if (!has_argument(node, "keepdim")) return;
  const auto dimensions = length(node->namedInput("dim"));
  const auto keeps = jit::toIValue(node->namedInput("keepdim"));
  if (!dimensions || !keeps) return;
  learn_from(node->input(0), keeps->toBool() ? 0 : -*dimensions, node->output(0));
}

// if dim(x) != rank: raise, or assert dim(x) == rank. Only a check that every run passes through says something about all runs.
void Ranks::read_check(const jit::Node* branch) {
  const jit::Node* condition = branch->input()->node();
  const bool unconditional = branch->owningBlock() == branch->owningGraph()->block();
  const bool demands_rank = (condition->kind() == jit::aten::ne && raises(branch->blocks().at(0))) ||
                            (condition->kind() == jit::aten::eq && raises(branch->blocks().at(1)));
  if (!unconditional || !demands_rank) return;
  const jit::Node* dimension = condition->input(0)->node();
  if (dimension->kind() == jit::aten::dim) learn(dimension->input(), constant_int(condition->input(1)), proven);
}

void Ranks::tie(const jit::Value* a, const jit::Value* b) {
  const size_t kept = root(a);
  const size_t joined = root(b);
  if (kept == joined) return;
  parent_[joined] = kept;
  for (const Knowledge knowledge : {proven, hinted, assumed}) {
    if (!known_[kept][knowledge]) known_[kept][knowledge] = known_[joined][knowledge];
  }
}

void Ranks::learn(const jit::Value* value, std::optional<int64_t> rank, Knowledge knowledge) {
  auto& known = known_[root(value)][knowledge];
  if (!known) known = rank;
}

void Ranks::learn_from(const jit::Value* source, int64_t difference, const jit::Value* value) {
  const auto index = find_root(source);
  if (!index) return;
  const Known known = known_[*index];
  for (const Knowledge knowledge : {proven, hinted, assumed}) {
    if (known[knowledge]) learn(value, *known[knowledge] + difference, knowledge);
  }
}

std::optional<size_t> Ranks::find_root(const jit::Value* value) const {
  const auto found = class_of_.find(value);
  if (found == class_of_.end()) return std::nullopt;
  return root(found->second);
}

size_t Ranks::root(const jit::Value* value) {
  const auto [found, is_new] = class_of_.emplace(value, parent_.size());
  if (is_new) {
    parent_.push_back(found->second);
    known_.emplace_back();
  }
  return root(found->second);
}

size_t Ranks::root(size_t index) const {
  while (parent_[index] != index) index = parent_[index];
  return index;
}

}  // namespace bnfold
