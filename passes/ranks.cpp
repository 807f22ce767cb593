#include "ranks.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Operators whose first output has the rank of their first input, whatever the other inputs are.
const std::unordered_set<std::string>& rank_keeping_operators() {
  // clang-format off: a line for each of them would hide the code around
  static const std::unordered_set<std::string> names = {
      "relu", "relu_", "relu6", "relu6_", "leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "selu", "celu", "gelu", "silu", "silu_",
      "mish", "mish_", "sigmoid", "sigmoid_", "tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardswish_", "hardsigmoid",
      "hardsigmoid_", "softplus", "softmax", "log_softmax", "clamp", "clamp_", "clamp_min", "clamp_max", "threshold", "abs", "exp",
      "neg", "sqrt", "dropout", "dropout_", "feature_dropout", "alpha_dropout", "batch_norm", "instance_norm", "layer_norm",
      "group_norm", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "pad",
      "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "t", "contiguous", "clone", "detach", "alias", "to", "float",
      "half", "double", "transpose", "transpose_", "slice", "flip", "roll", "pixel_shuffle", "channel_shuffle", "narrow", "cumsum"};
  // clang-format on
  return names;
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

std::optional<int64_t> integer(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isInt()) return std::nullopt;
  return constant->toInt();
}

bool raises(const jit::Block* block) {
  const auto nodes = const_cast<jit::Block*>(block)->nodes();
  return std::any_of(nodes.begin(), nodes.end(), [](const jit::Node* node) { return node->kind() == jit::prim::RaiseException; });
}

bool changes_ranks_in_place(const jit::Graph& graph) {
  static const std::unordered_set<std::string> names = {"squeeze_", "unsqueeze_", "resize_", "resize_as_", "set_", "as_strided_"};
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
  // A value that changes its rank in place has none that could be told; then every rank is checked where it matters.
  if (!changes_ranks_in_place(graph)) read(graph.block());
}

std::optional<int64_t> Ranks::of(const jit::Value* value) const {
  const auto found = known_.find(root(value));
  if (found == known_.end()) return std::nullopt;
  for (const auto& rank : found->second) {
    if (rank) return rank;
  }
  return std::nullopt;
}

bool Ranks::is_certain(const jit::Value* value) const {
  const auto found = known_.find(root(value));
  if (found == known_.end()) return false;
  const auto& ranks = found->second;
  return ranks[proven].has_value() || (ranks[hinted].has_value() && ranks[hinted] == ranks[assumed]);
}

void Ranks::prove(const jit::Value* value, int64_t rank) {
  learn(value, rank, proven);
}

void Ranks::read(const jit::Block* block) {
  for_each_node(block, [this](const jit::Node* node) { read(node); });
}

void Ranks::read(const jit::Node* node) {
  if (node->kind() == jit::prim::If) read_check(node);
  if (!in_aten(node)) return;
  const std::string operation = node->kind().toUnqualString();
  const jit::Value* input = node->input(0);
  const jit::Value* output = node->output(0);
  if (const auto rank = convolution_rank(node)) {
    tie(input, output);
    learn(output, rank, assumed);
  } else if (rank_keeping_operators().count(operation) != 0) {
    tie(input, output);
  } else if (operation == "addmm" || operation == "mm") {
    learn(output, 2, proven);
  } else if (operation == "view" || operation == "reshape") {
    learn(output, length(node->input(1)), proven);
  } else if (operation == "permute") {
    learn(input, length(node->input(1)), proven);
    tie(input, output);
  } else if (operation == "flatten") {
    const auto first = integer(node->input(1));
    const auto last = integer(node->input(2));
    if (first && last && *first >= 0 && *last == -1) learn(output, *first + 1, proven);
    if (first && last && *first >= 0 && *last >= *first) learn_from(input, *first - *last, output);
  } else if (operation == "unsqueeze") {
    learn_from(input, 1, output);
  } else if (operation == "select") {
    learn_from(input, -1, output);
  } else if (operation == "embedding") {
    learn_from(node->input(1), 1, output);
  } else if (operation == "matmul" || operation == "linear") {
    if (static_rank_(node->input(1)) == 2) tie(input, output);
  } else if (operation == "add" || operation == "add_" || operation == "mul" || operation == "mul_") {
    if (static_rank_(node->input(1)).value_or(2) <= 1 || root(input) == root(node->input(1))) tie(input, output);
  } else if (operation == "mean" || operation == "sum") {
    read_reduction(node);
  }
}

void Ranks::read_reduction(const jit::Node* node) {
  if (!node->schema().argumentIndexWithName("dim") || !node->schema().argumentIndexWithName("keepdim")) return;
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
  if (dimension->kind() == jit::aten::dim) learn(dimension->input(), integer(condition->input(1)), proven);
}

void Ranks::tie(const jit::Value* a, const jit::Value* b) {
  const jit::Value* kept = root(a);
  const jit::Value* joined = root(b);
  if (kept == joined) return;
  parent_[joined] = kept;
  const auto known = known_[joined];
  for (const Knowledge knowledge : {proven, hinted, assumed}) learn(kept, known.at(knowledge), knowledge);
}

void Ranks::learn(const jit::Value* value, std::optional<int64_t> rank, Knowledge knowledge) {
  auto& known = known_[root(value)][knowledge];
  if (!known) known = rank;
}

void Ranks::learn_from(const jit::Value* source, int64_t difference, const jit::Value* value) {
  const auto found = known_.find(root(source));
  if (found == known_.end()) return;
  const auto known = found->second;
  for (const Knowledge knowledge : {proven, hinted, assumed}) {
    if (known.at(knowledge)) learn(value, *known.at(knowledge) + difference, knowledge);
  }
}

const jit::Value* Ranks::root(const jit::Value* value) const {
  auto found = parent_.find(value);
  while (found != parent_.end()) {
    value = found->second;
    found = parent_.find(value);
  }
  return value;
}

}  // namespace bnfold
