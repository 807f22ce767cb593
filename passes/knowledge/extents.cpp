#include "knowledge/extents.h"

#include <algorithm>
#include <string>

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Sums and concatenations in a row, of which ResNet-1001 has 333. Each takes some 700 bytes of the stack, and a thread may have 512 KB.
constexpr int kDeepest = 400;

std::optional<int64_t> wrapped(std::optional<int64_t> dimension, std::optional<int64_t> rank) {
  if (dimension && *dimension < 0) return rank ? std::optional<int64_t>(*dimension + *rank) : std::nullopt;
  return dimension;
}

}  // namespace

std::optional<int64_t> dimension_before(const jit::Node* node, int64_t dimension, std::optional<int64_t> rank) {
  if (node->kind() == jit::aten::permute) {
    const auto order = constant_ints(node->input(1));
    if (!order || dimension >= static_cast<int64_t>(order->size())) return std::nullopt;
    return wrapped(order->at(dimension), order->size());
  }
  const bool is_t = node->kind() == jit::aten::t;
  const auto first = is_t ? 0 : constant_dimension(node->input(1), rank);
  const auto second = is_t ? 1 : constant_dimension(node->input(2), rank);
  if (!first || !second) return std::nullopt;
  if (dimension == *first) return second;
  if (dimension == *second) return first;
  return dimension;
}

std::optional<int64_t> Extents::of(const jit::Value* value, int64_t dimension) const {
  const auto key = std::make_pair(value, dimension);
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  if (depth_ == kDeepest) return std::nullopt;
  ++depth_;
  const auto size = computed(value, dimension);
  --depth_;
  return known_[key] = size;
}

bool Extents::fit(const jit::Value* value, const algebra::Affine& affine) const {
  if (ranks_.of(value) != affine.rank()) return false;
  for (int64_t dimension = 0; dimension < affine.rank(); ++dimension) {
    const int64_t size = affine.size_along(dimension);
    if (size != 1 && of(value, dimension) != size) return false;
  }
  return true;
}

std::optional<int64_t> Extents::computed(const jit::Value* value, int64_t dimension) const {
  while (true) {
    if (const auto tensor = store_.read(value)) {
      if (!tensor->defined() || dimension >= tensor->dim()) return std::nullopt;
      return tensor->size(dimension);
    }
    const jit::Node* node = value->node();
    if (!node->kind().is_aten() && node->kind() != jit::prim::ListUnpack) return std::nullopt;
    const std::string operation = node->kind().toUnqualString();
    const auto rank = [&] { return ranks_.of(value); };
    if (const auto size = of_weight(node, dimension)) return size;
    if (operation == "cat" || operation == "concat") return of_concatenation(node, dimension);
    if (operation == "ListUnpack") return of_piece(node->input()->node(), value->offset(), dimension);
    if (operation == "add" || operation == "add_" || operation == "mul" || operation == "mul_" || operation == "sub" ||
        operation == "sub_" || operation == "div" || operation == "div_" || operation == "maximum" || operation == "minimum" ||
        operation.rfind("clamp", 0) == 0) {
      return of_broadcast(node, dimension);
    }
    if (operation == "permute" || operation == "transpose" || operation == "t") {
      const auto before = dimension_before(node, dimension, rank());
      if (!before) return std::nullopt;
      dimension = *before;
    } else if (operation == "flatten") {
      const auto first = constant_int(node->namedInput("start_dim"));
      if (!first || *first < 0 || dimension >= *first) return std::nullopt;
    } else if (operation == "pad" || operation == "constant_pad_nd") {
      const auto padding = constant_ints(node->input(1));
      if (!padding || dimension >= rank().value_or(0) - static_cast<int64_t>(padding->size()) / 2) return std::nullopt;
    } else if (operation == "slice" || operation == "narrow") {
      const auto cut = constant_dimension(node->namedInput("dim"), rank());
      if (!cut || *cut == dimension) return std::nullopt;
    } else if (operation.rfind("adaptive_", 0) == 0 && rank() && dimension >= *rank() - spatial_dimensions(node)) {
      const auto sizes = constant_ints(node->input(1));
      const int64_t place = sizes ? dimension - (*rank() - static_cast<int64_t>(sizes->size())) : -1;
      if (place < 0 || sizes->at(place) < 0) return std::nullopt;
      return sizes->at(place);
    } else if (operation == "mean" || operation == "sum") {
      const auto dimensions = has_argument(node, "keepdim") ? constant_ints(node->namedInput("dim")) : std::nullopt;
      if (!dimensions || constant_bool(node->namedInput("keepdim")) != true) return std::nullopt;
      if (dimensions->empty()) return 1;  // then all are reduced
      for (const int64_t reduced : *dimensions) {
        const auto one = reduced < 0 ? wrapped(reduced, rank()) : reduced;
        if (!one) return std::nullopt;
        if (one == dimension) return 1;
      }
    } else if (!keeps_sizes(node) && (!keeps_channels(node) || dimension >= rank().value_or(0) - spatial_dimensions(node))) {
      return std::nullopt;
    }
    value = node->input(0);
  }
}

// The channels that leave a layer or norm with static weights.
std::optional<int64_t> Extents::of_weight(const jit::Node* node, int64_t dimension) const {
  const std::string operation = node->kind().toUnqualString();
  const auto shape = [&](size_t input) {
    const auto tensor = store_.read(node->input(input));
    return tensor && tensor->defined() ? tensor->sizes().vec() : std::vector<int64_t>();
  };
  if (operation == "batch_norm" || operation == "instance_norm") {
    const auto mean = shape(3);
    return dimension == 1 && mean.size() == 1 ? std::optional<int64_t>(mean[0]) : std::nullopt;
  }
  if (operation == "linear") {
    const auto weight = shape(1);
    const auto rank = ranks_.of(node->output());
    return weight.size() == 2 && rank == dimension + 1 ? std::optional<int64_t>(weight[0]) : std::nullopt;
  }
  if (operation.find("conv") == std::string::npos || dimension != 1) return std::nullopt;
  const auto weight = shape(1);
  if (weight.size() < 3 || ranks_.of(node->output()) != static_cast<int64_t>(weight.size())) return std::nullopt;
  const bool flag = has_argument(node, "transposed");
  const auto transposed = flag ? constant_bool(node->namedInput("transposed")) : operation.rfind("conv_transpose", 0) == 0;
  const auto groups = has_argument(node, "groups") ? constant_int(node->namedInput("groups")) : std::nullopt;
  if (!transposed || !groups) return std::nullopt;
  return *transposed ? weight[1] * *groups : weight[0];
}

std::optional<int64_t> Extents::of_concatenation(const jit::Node* node, int64_t dimension) const {
  const jit::Node* list = node->input(0)->node();
  const auto joined = constant_dimension(node->input(1), ranks_.of(node->output()));
  if (list->kind() != jit::prim::ListConstruct || !joined) return std::nullopt;
  int64_t total = 0;
  for (const jit::Value* part : list->inputs()) {
    const auto size = of(part, dimension);
    if (size && *joined != dimension) return size;
    if (!size && *joined == dimension) return std::nullopt;
    total += size.value_or(0);
  }
  return *joined == dimension ? std::optional<int64_t>(total) : std::nullopt;
}

std::optional<int64_t> Extents::of_broadcast(const jit::Node* node, int64_t dimension) const {
  const auto rank = ranks_.of(node->output());
  for (const jit::Value* operand : node->inputs()) {
    const auto static_tensor = store_.read(operand);
    const auto own_rank = static_tensor && static_tensor->defined() ? static_tensor->dim() : ranks_.of(operand);
    if (!rank || own_rank != rank) continue;
    const auto size = of(operand, dimension);
    if (size && *size > 1) return size;
  }
  return std::nullopt;
}

// An element of the list that chunk or split with a constant size return.
std::optional<int64_t> Extents::of_piece(const jit::Node* node, size_t output, int64_t dimension) const {
  if (node->kind() != jit::aten::chunk) return std::nullopt;
  const auto pieces = constant_int(node->input(1));
  const auto cut = constant_dimension(node->input(2), ranks_.of(node->input(0)));
  const auto whole = of(node->input(0), dimension);
  if (!pieces || !cut || !whole) return std::nullopt;
  if (*cut != dimension) return whole;
  const int64_t length = (*whole + *pieces - 1) / *pieces;
  return std::min(length, *whole - length * static_cast<int64_t>(output));
}

}  // namespace bnfold
