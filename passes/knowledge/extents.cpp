#include "knowledge/extents.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "knowledge/static_values.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Sums and concatenations in a row, of which ResNet-1001 has 333. Each takes some 700 bytes of the stack, and a thread may have 512 KB.
constexpr int kDeepest = 400;

std::optional<int64_t> size_in_type(const jit::Value* value, int64_t dimension) {
  const auto type = value->type()->cast<c10::TensorType>();
  const auto rank = type ? type->sizes().size() : c10::nullopt;
  if (!rank || dimension < 0 || dimension >= static_cast<int64_t>(*rank)) return std::nullopt;
  const auto size = type->sizes()[static_cast<size_t>(dimension)];
  if (!size) return std::nullopt;
  const int64_t known = *size;
  return known;
}

}  // namespace

std::optional<int64_t> dimension_before(const jit::Node* node, int64_t dimension, std::optional<int64_t> rank) {
  if (node->kind() == jit::aten::permute) {
    const auto order = constant_ints(node->input(1));
    if (!order || dimension >= static_cast<int64_t>(order->size())) return std::nullopt;
    return from_front(order->at(dimension), order->size());
  }
  const bool is_t = node->kind() == jit::aten::t;
  if (is_t && rank && *rank < 2) return dimension;
  const auto first = is_t ? 0 : constant_dimension(node->input(1), rank);
  const auto second = is_t ? 1 : constant_dimension(node->input(2), rank);
  if (!first || !second) return std::nullopt;
  if (dimension == *first) return second;
  if (dimension == *second) return first;
  return dimension;
}

std::optional<std::pair<int64_t, int64_t>> slice_bounds(const jit::Node* slice) {
  const auto bound = [slice](const char* name, int64_t otherwise) {
    return is_left_out(slice, name) ? std::optional<int64_t>(otherwise) : constant_int(slice->namedInput(name));
  };
  const auto start = bound("start", 0);
  const auto end = bound("end", kSliceEnd);
  return start && end ? std::optional(std::make_pair(*start, *end)) : std::nullopt;
}

std::pair<int64_t, int64_t> sliced_places(int64_t start, int64_t end, int64_t length) {
  const auto bounded = [length](int64_t place) { return std::clamp<int64_t>(place < 0 ? place + length : place, 0, length); };
  return {bounded(start), std::max(bounded(start), bounded(end))};
}

std::optional<CutRange> range_of_cut(const jit::Node* cut, int64_t size) {
  if (cut->kind() == jit::aten::slice) {
    const auto bounds = slice_bounds(cut);
    if (!bounds || constant_int(cut->namedInput("step")) != 1) return std::nullopt;
    const auto [first, last] = sliced_places(bounds->first, bounds->second, size);
    return last > first ? std::optional<CutRange>({first, last - first}) : std::nullopt;
  }
  const bool selects = cut->kind() == jit::aten::select;
  auto start = constant_int(cut->namedInput(selects ? "index" : "start"));
  if (start && *start < 0) *start += size;
  const auto length = selects ? std::optional<int64_t>(1) : constant_int(cut->namedInput("length"));
  if (!start || !length || *start < 0 || *length < 1 || *start + *length > size) return std::nullopt;
  return CutRange{*start, *length};
}

bool makes_pieces(const jit::Node* node) {
  return operator_of(node).shape == Shape::pieces || operator_of(node).shape == Shape::unbound;
}

std::optional<std::vector<int64_t>> lengths_of_pieces(const jit::Node* cut, std::optional<int64_t> whole) {
  if (operator_of(cut).shape == Shape::unbound) {
    return whole ? std::optional(std::vector<int64_t>(*whole, 1)) : std::nullopt;
  }
  if (cut->input(1)->type()->kind() == c10::TypeKind::ListType) {
    auto lengths = constant_ints(cut->input(1));
    if (lengths && whole && std::accumulate(lengths->begin(), lengths->end(), int64_t{0}) != *whole) return std::nullopt;
    return lengths;
  }
  const auto number = constant_int(cut->input(1));
  if (!whole || !number || *number <= 0) return std::nullopt;
  const int64_t length = has_argument(cut, "chunks") ? (*whole + *number - 1) / *number : *number;
  std::vector<int64_t> lengths;
  for (int64_t rest = *whole; rest > 0; rest -= length) lengths.push_back(std::min(rest, length));
  return lengths;
}

std::optional<int64_t> size_of_piece(const jit::Node* cut, int64_t piece, std::optional<int64_t> whole) {
  const auto lengths = lengths_of_pieces(cut, whole);
  if (!lengths) return std::nullopt;
  const auto count = static_cast<int64_t>(lengths->size());
  const int64_t index = piece < 0 ? piece + count : piece;
  return index >= 0 && index < count ? std::optional<int64_t>(lengths->at(index)) : std::nullopt;
}

std::optional<int64_t> Extents::of(const jit::Value* value, int64_t dimension) const {
  const auto key = std::make_pair(value, dimension);
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  if (depth_ == kDeepest) return std::nullopt;
  ++depth_;
  auto size = computed(value, dimension);
  --depth_;
  if (!size) size = told_by_readers(value, dimension);
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
    if (const auto size = ranks_.are_in_types() ? size_in_type(value, dimension) : std::nullopt) return size;
    const jit::Node* node = value->node();
    if (node->kind() == jit::prim::ListUnpack) return of_piece(node->input(), value->offset(), dimension);
    if (node->kind() == jit::aten::__getitem__) return of_piece(node->input(0), constant_int(node->input(1)), dimension);
    if (const auto size = of_weight(node, dimension)) return size;
    switch (operator_of(node).shape) {
      case Shape::concatenation:
        return of_concatenation(node, dimension);
      case Shape::broadcast:
        return of_broadcast(node, dimension);
      case Shape::reduced: {
        const auto reduced = is_reduced(node, dimension);
        if (!reduced) return std::nullopt;
        if (*reduced) return 1;
        break;
      }
      case Shape::adapted:
        if (is_spatial(node, dimension)) return of_adaptive_pooling(node, dimension);
        break;
      case Shape::channels:
      case Shape::bordered:
      case Shape::interpolated:
        if (is_spatial(node, dimension)) return std::nullopt;
        break;
      case Shape::cut: {
        const auto cut = constant_dimension(node->namedInput("dim"), ranks_.of(value));
        if (!cut) return std::nullopt;
        if (*cut == dimension) return of_part(node, dimension);
        break;
      }
      case Shape::padded:
        return of_padded(node, dimension);
      case Shape::listed:
      case Shape::expanded:
        return of_listed(node, dimension);
      case Shape::selected: {
        const auto rank = ranks_.of(value);
        const auto selected = rank ? constant_dimension(node->namedInput("dim"), *rank + 1) : std::nullopt;
        if (!selected) return std::nullopt;
        dimension += dimension >= *selected ? 1 : 0;
        break;
      }
      case Shape::stacked:
        return of_stack(node, dimension);
      case Shape::squeezed: {
        const auto before = dimension_before_squeeze(node, dimension);
        if (!before) return std::nullopt;
        dimension = *before;
        break;
      }
      case Shape::permuted:
      case Shape::transposed: {
        const auto before = dimension_before(node, dimension, ranks_.of(value));
        if (!before) return std::nullopt;
        dimension = *before;
        break;
      }
      default:
        if (!stays(node, dimension)) return std::nullopt;
    }
    value = node->input(0);
  }
}

// Whether the output has the size of the first input along the dimension.
bool Extents::stays(const jit::Node* node, int64_t dimension) const {
  switch (operator_of(node).shape) {
    case Shape::same:
    case Shape::normalized:
    case Shape::sequences:
      return true;
    case Shape::resized:
      return node->kind() == jit::aten::index_select &&
             dimension != constant_dimension(node->input(1), ranks_.of(node->output(0)));
    case Shape::flattened:
      return dimension < constant_int(node->namedInput("start_dim")).value_or(0);
    default:
      return false;
  }
}

// Whether a reduction that keeps dimensions reduces this one; nothing where that is not known.
std::optional<bool> Extents::is_reduced(const jit::Node* node, int64_t dimension) const {
  const auto dimensions = has_argument(node, "keepdim") ? constant_ints(node->namedInput("dim")) : std::nullopt;
  if (!dimensions || constant_bool(node->namedInput("keepdim")) != true) return std::nullopt;
  for (const int64_t reduced : *dimensions) {
    const auto one = reduced < 0 ? from_front(reduced, ranks_.of(node->output(0))) : reduced;
    if (!one) return std::nullopt;
    if (one == dimension) return true;
  }
  return dimensions->empty();  // then all are reduced
}

bool Extents::is_spatial(const jit::Node* node, int64_t dimension) const {
  return dimension >= ranks_.of(node->output(0)).value_or(0) - spatial_dimensions(node);
}

// The size that adaptive pooling is told to make.
std::optional<int64_t> Extents::of_adaptive_pooling(const jit::Node* node, int64_t dimension) const {
  const auto rank = ranks_.of(node->output(0));
  const auto sizes = rank ? constant_ints(node->input(1)) : std::nullopt;
  const int64_t place = sizes ? dimension - (*rank - static_cast<int64_t>(sizes->size())) : -1;
  if (place < 0 || sizes->at(place) < 0) return std::nullopt;
  return sizes->at(place);
}

// The sizes of a weight; none where the operator has none there.
std::optional<std::vector<int64_t>> Extents::shape_of_static(const jit::Node* node, size_t input) const {
  jit::Value* value = const_cast<jit::Node*>(node)->input(input);
  if (const auto tensor = store_.read(value)) return tensor->defined() ? tensor->sizes().vec() : std::vector<int64_t>();
  const auto computed = static_tensor(store_, value);
  return computed ? std::optional<std::vector<int64_t>>(computed->tensor.sizes().vec()) : std::nullopt;
}

std::optional<int64_t> Extents::last_of_linear(const jit::Node* linear) const {
  const auto weight = shape_of_static(linear, 1);
  return weight && weight->size() == 2 ? std::optional<int64_t>(weight->at(0)) : std::nullopt;
}

// What a layer that reads a value needs as its size along `dimension`, and raises an error otherwise.
std::optional<int64_t> Extents::taken_by(const jit::Node* layer, int64_t dimension) const {
  if (layer->kind() != jit::aten::linear && !is_convolution(layer)) return std::nullopt;
  const auto weight = shape_of_static(layer, 1);
  if (!weight) return std::nullopt;
  if (layer->kind() == jit::aten::linear) {
    const bool last = weight->size() == 2 && ranks_.of(layer->output()) == dimension + 1;
    return last ? std::optional<int64_t>(weight->at(1)) : std::nullopt;
  }
  const auto transposed = is_transposed(layer);
  const auto groups = has_argument(layer, "groups") ? constant_int(layer->namedInput("groups")) : std::nullopt;
  if (dimension != 1 || !transposed || !groups) return std::nullopt;
  if (ranks_.of(layer->output()) != static_cast<int64_t>(weight->size())) return std::nullopt;
  return *transposed ? weight->at(0) : weight->at(1) * *groups;
}

// The size that the readers of a value need, those that run whenever it is made, behind what keeps it too.
std::optional<int64_t> Extents::told_by_readers(const jit::Value* value, int64_t dimension) const {
  if (depth_ == kDeepest) return std::nullopt;
  ++depth_;
  std::optional<int64_t> size;
  for (const jit::Use& use : value->uses()) {
    if (size || use.offset != 0 || use.user->owningBlock() != value->node()->owningBlock()) continue;
    size = taken_by(use.user, dimension);
    const bool keeps = operator_of(use.user).shape == Shape::same && !operator_of(use.user).in_place;
    if (!size && keeps) size = told_by_readers(use.user->output(0), dimension);
  }
  --depth_;
  return size;
}

// The channels that leave a layer or norm with static weights.
std::optional<int64_t> Extents::of_weight(const jit::Node* node, int64_t dimension) const {
  const auto shape = [&](size_t input) { return shape_of_static(node, input).value_or(std::vector<int64_t>()); };
  const Shape kind = operator_of(node).shape;
  if (kind == Shape::normalized) {
    const auto mean = shape(3);
    return dimension == 1 && mean.size() == 1 ? std::optional<int64_t>(mean[0]) : std::nullopt;
  }
  if (kind == Shape::linear || kind == Shape::product) {
    const auto weight = shape(1);
    if (weight.size() != 2 || ranks_.of(node->output()) != dimension + 1) return std::nullopt;
    return weight[kind == Shape::linear ? 0 : 1];
  }
  if (kind == Shape::matrix) {
    const auto right = shape(node->kind() == jit::aten::addmm ? 2 : 1);
    return dimension == 1 && right.size() == 2 ? std::optional<int64_t>(right[1]) : std::nullopt;
  }
  if (kind == Shape::matrices) {
    const size_t left = node->inputs().size() == 2 ? 0 : 1;
    return of(node->input(dimension == 2 ? left + 1 : left), dimension);
  }
  if (node->kind() == jit::aten::embedding) {
    const auto weight = shape(0);
    return weight.size() == 2 && ranks_.of(node->output()) == dimension + 1 ? std::optional<int64_t>(weight[1]) : std::nullopt;
  }
  if (!is_convolution(node) || dimension != 1) return std::nullopt;
  const auto weight = shape(1);
  if (weight.size() < 3 || ranks_.of(node->output()) != static_cast<int64_t>(weight.size())) return std::nullopt;
  const auto transposed = is_transposed(node);
  const auto groups = has_argument(node, "groups") ? constant_int(node->namedInput("groups")) : std::nullopt;
  if (!transposed || !groups) return std::nullopt;
  return *transposed ? weight[1] * *groups : weight[0];
}

std::optional<int64_t> Extents::of_concatenation(const jit::Node* node, int64_t dimension) const {
  const auto parts = items_of_list(node->input(0));
  const auto joined = constant_dimension(node->input(1), ranks_.of(node->output()));
  if (!parts || !joined) return std::nullopt;
  int64_t total = 0;
  for (const jit::Value* part : *parts) {
    const auto size = of(part, dimension);
    if (size && *joined != dimension) return size;
    if (!size && *joined == dimension) return std::nullopt;
    total += size.value_or(0);
  }
  return *joined == dimension ? std::optional<int64_t>(total) : std::nullopt;
}

std::optional<int64_t> Extents::of_stack(const jit::Node* node, int64_t dimension) const {
  const auto parts = items_of_list(node->input(0));
  const auto stacked = constant_dimension(node->input(1), ranks_.of(node->output()));
  if (!parts || !stacked) return std::nullopt;
  if (*stacked == dimension) return static_cast<int64_t>(parts->size());
  for (const jit::Value* part : *parts) {
    if (const auto size = of(part, dimension > *stacked ? dimension - 1 : dimension)) return size;
  }
  return std::nullopt;
}

// Which dimension of its input is dimension `dimension` of what squeeze makes; nothing where that is not known.
std::optional<int64_t> Extents::dimension_before_squeeze(const jit::Node* node, int64_t dimension) const {
  const auto before = ranks_.of(node->input(0));
  const auto behind = ranks_.of(node->output(0));
  if (!before || !behind || !has_argument(node, "dim")) return std::nullopt;
  if (before == behind) return dimension;
  const auto one = constant_int(node->namedInput("dim"));
  auto dropped = one ? std::vector<int64_t>{*one} : constant_ints(node->namedInput("dim")).value_or(std::vector<int64_t>());
  if (*before - *behind != static_cast<int64_t>(dropped.size())) return std::nullopt;
  for (int64_t& one_of_them : dropped) one_of_them += one_of_them < 0 ? *before : 0;
  std::sort(dropped.begin(), dropped.end());
  for (const int64_t one_of_them : dropped) dimension += dimension >= one_of_them ? 1 : 0;
  return dimension;
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

// The amounts are told from the last dimension on, before and behind it.
std::optional<int64_t> Extents::of_padded(const jit::Node* node, int64_t dimension) const {
  const auto rank = ranks_.of(node->output(0));
  const auto amounts = constant_ints(node->input(1));
  if (!rank || !amounts || dimension >= *rank) return std::nullopt;
  const auto size = of(node->input(0), dimension);
  const size_t place = 2 * static_cast<size_t>(*rank - 1 - dimension);
  if (!size || place + 1 >= amounts->size()) return size;
  return *size + amounts->at(place) + amounts->at(place + 1);
}

// The sizes that view, reshape and expand are given. -1 is what expand leaves.
std::optional<int64_t> Extents::of_listed(const jit::Node* node, int64_t dimension) const {
  const auto numbers = constant_ints(node->input(1));
  const auto items = items_of_list(node->input(1));
  const auto length = static_cast<int64_t>(numbers ? numbers->size() : items ? items->size() : 0);
  if (dimension < 0 || dimension >= length) return std::nullopt;
  const auto place = static_cast<size_t>(dimension);
  const auto number = numbers ? std::optional<int64_t>(numbers->at(place)) : constant_int(items->at(place));
  if (!number || *number >= 0) return number;
  const auto rank = operator_of(node).shape == Shape::expanded ? ranks_.of(node->input(0)) : std::nullopt;
  return rank && dimension >= length - *rank ? of(node->input(0), dimension - (length - *rank)) : std::nullopt;
}

// What slice or narrow take along the cut.
std::optional<int64_t> Extents::of_part(const jit::Node* node, int64_t dimension) const {
  const auto whole = of(node->input(0), dimension);
  const auto range = whole ? range_of_cut(node, *whole) : std::nullopt;
  return range ? std::optional<int64_t>(range->length) : std::nullopt;
}

// An element of the list that chunk, split or unbind return.
std::optional<int64_t> Extents::of_piece(const jit::Value* pieces, std::optional<int64_t> place, int64_t dimension) const {
  const jit::Node* node = maker_of_list(pieces);
  if (node == nullptr || !makes_pieces(node)) return std::nullopt;
  const auto cut = constant_dimension(node->namedInput("dim"), ranks_.of(node->input(0)));
  if (!cut) return std::nullopt;
  if (operator_of(node).shape == Shape::unbound) return of(node->input(0), dimension + (dimension >= *cut ? 1 : 0));
  const auto whole = of(node->input(0), dimension);
  if (*cut != dimension) return whole;
  return place ? size_of_piece(node, *place, whole) : std::nullopt;
}

}  // namespace bnfold
