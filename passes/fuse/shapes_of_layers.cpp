// The sizes of what layers make, pooling, padding and interpolation among them.
#include <fmt/format.h>

#include <algorithm>

#include "fuse/shape_reader.h"
#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The sizes of a pooling's argument, one for each dimension, and `otherwise` where it has none.
std::optional<std::vector<int64_t>> window_argument(const jit::Node* pool, const char* name, size_t spatial, int64_t otherwise) {
  if (!has_argument(pool, name)) return std::vector<int64_t>(spatial, otherwise);
  return constant_ints(pool->namedInput(name), spatial);
}

// A rank with which this operator takes a value, with or without a batch.
bool fits(const jit::Node* node, size_t rank) {
  const auto spatial = static_cast<size_t>(spatial_dimensions(node));
  return rank == spatial + 1 || rank == spatial + 2;
}

}  // namespace

// How often a window fits in, moved by `stride`.
SizeId ShapeReader::behind_window(SizeId size, int64_t window, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t reach = dilation * (window - 1);
  return sizes_.scaled(sizes_.quotient(sizes_.scaled(size, 1, 2 * padding - reach - 1), stride), 1, 1);
}

SizeList ShapeReader::of_conv(const jit::Node* conv) {
  const bool forward = is_forward_conv(conv);
  if (!forward && !is_transposed_conv(conv)) return std::nullopt;
  const auto weight = constant_tensor(conv->namedInput("weight"));
  SizeList sizes = input(conv);
  if (!weight || !sizes) return std::nullopt;
  const auto rank = static_cast<size_t>(weight->dim());
  if (sizes->size() != rank && sizes->size() + 1 != rank) return std::nullopt;
  const auto geometry = conv_geometry(conv, *weight);
  if (!geometry) return ints_.unknown_sizes(conv->output(), sizes->size());
  const size_t channels = sizes->size() - rank + 1;
  sizes->at(channels) = sizes_.constant(forward ? weight->size(0) : weight->size(1) * geometry->groups);
  for (size_t i = 0; i < rank - 2; ++i) {
    const int64_t window = weight->size(static_cast<int64_t>(i) + 2);
    const int64_t stride = geometry->stride[i];
    SizeId& size = sizes->at(channels + 1 + i);
    if (stride <= 0) return std::nullopt;
    if (forward) {
      size = behind_window(size, window, stride, geometry->padding[i], geometry->dilation[i]);
    } else {
      const int64_t reach = geometry->dilation[i] * (window - 1);
      size = sizes_.scaled(size, stride, reach + geometry->output_padding[i] + 1 - 2 * geometry->padding[i] - stride);
    }
  }
  return sizes;
}

SizeList ShapeReader::of_pool(const jit::Node* pool) {
  SizeList sizes = input(pool);
  if (!sizes || !fits(pool, sizes->size())) return std::nullopt;
  const auto spatial = static_cast<size_t>(spatial_dimensions(pool));
  const auto window = window_argument(pool, "kernel_size", spatial, 0);
  auto stride = window_argument(pool, "stride", spatial, 0);
  if (!stride && constant_ints(pool->namedInput("stride")) == std::vector<int64_t>{}) stride = window;
  const auto padding = window_argument(pool, "padding", spatial, 0);
  const auto dilation = window_argument(pool, "dilation", spatial, 1);
  const auto ceil = constant_bool(pool->namedInput("ceil_mode"));
  if (!window || !stride || !padding || !dilation || !ceil) return ints_.unknown_sizes(pool->outputs()[0], sizes->size());
  for (size_t i = 0; i < spatial; ++i) {
    if (stride->at(i) <= 0) return std::nullopt;
    SizeId& size = sizes->at(sizes->size() - spatial + i);
    if (*ceil) {
      // The last window may lie in the padding, and is left out then.
      const auto name = fmt::format("ceil pool {} {} {} {}", window->at(i), stride->at(i), padding->at(i), dilation->at(i));
      size = sizes_.unknown(name, {size});
    } else {
      size = behind_window(size, window->at(i), stride->at(i), padding->at(i), dilation->at(i));
    }
  }
  return sizes;
}

SizeList ShapeReader::of_adaptive_pool(const jit::Node* pool) {
  SizeList sizes = input(pool);
  auto last = ints_.list(pool->input(1));
  if (!sizes || !last || !fits(pool, sizes->size())) return std::nullopt;
  const auto spatial = static_cast<size_t>(spatial_dimensions(pool));
  if (last->size() == 1) last->resize(spatial, last->front());
  const auto is_none = [this](SizeId size) { return sizes_.may_be_negative(size); };
  if (last->size() != spatial || std::any_of(last->begin(), last->end(), is_none)) return std::nullopt;
  std::copy(last->begin(), last->end(), sizes->end() - static_cast<int64_t>(spatial));
  return sizes;
}

// To given sizes, or by factors.
SizeList ShapeReader::of_interpolation(const jit::Node* node) {
  SizeList sizes = input(node);
  if (!sizes || sizes->size() < 3) return std::nullopt;
  if (node->input(1)->type()->kind() == c10::TypeKind::NoneType) return of_scaling(node);
  const auto last = ints_.list(node->input(1));
  const auto is_none = [this](SizeId size) { return sizes_.may_be_negative(size); };
  if (!last || last->size() + 2 != sizes->size() || std::any_of(last->begin(), last->end(), is_none)) {
    return ints_.unknown_sizes(node->output(), sizes->size());
  }
  std::copy(last->begin(), last->end(), sizes->begin() + 2);
  return sizes;
}

SizeList ShapeReader::of_scaling(const jit::Node* node) {
  SizeList sizes = input(node);
  if (!has_argument(node, "scale_factors")) return ints_.unknown_sizes(node->output(), sizes->size());
  const auto constant = jit::toIValue(node->namedInput("scale_factors"));
  if (!constant || !constant->isDoubleList() || constant->toDoubleVector().size() + 2 != sizes->size()) {
    return ints_.unknown_sizes(node->output(), sizes->size());
  }
  size_t place = 2;
  for (const double factor : constant->toDoubleVector()) {
    SizeId& size = sizes->at(place++);
    const bool whole = factor >= 1 && factor <= 1024 && factor == static_cast<double>(static_cast<int64_t>(factor));
    size = whole ? sizes_.scaled(size, static_cast<int64_t>(factor), 0)
                 : sizes_.unknown(fmt::format("scaled by {:a}", factor), {size});
  }
  return sizes;
}

SizeList ShapeReader::of_linear(const jit::Node* node) {
  SizeList sizes = input(node);
  const SizeList& weight = input(node, 1);
  if (!sizes || !weight || sizes->empty() || weight->size() != 2) return std::nullopt;
  sizes->back() = weight->at(0);
  return sizes;
}

// The factors of addmm and baddbmm stand behind what is added.
SizeList ShapeReader::of_product(const jit::Node* node) {
  const size_t first = node->inputs().size() == 2 ? 0 : 1;
  const SizeList& one = input(node, first);
  const SizeList& other = input(node, first + 1);
  if (!one || !other || one->size() < 2 || other->size() < 2) return std::nullopt;
  SizeList longer = one->size() >= other->size() ? one : other;
  const SizeList& shorter = one->size() >= other->size() ? other : one;
  const size_t ahead = longer->size() - shorter->size();
  for (size_t i = 0; i + 2 < shorter->size(); ++i) {
    longer->at(ahead + i) = sizes_.broadcast(longer->at(ahead + i), shorter->at(i));
  }
  longer->at(longer->size() - 2) = one->at(one->size() - 2);
  longer->back() = other->back();
  return longer;
}

SizeList ShapeReader::of_attention(const jit::Node* node) {
  SizeList query = input(node);
  const SizeList& key = input(node, 1);
  const SizeList& value = input(node, 2);
  if (!query || !key || !value || query->size() < 2) return std::nullopt;
  if (key->size() != query->size() || value->size() != query->size()) return std::nullopt;
  for (size_t i = 0; i + 2 < query->size(); ++i) {
    if (query->at(i) != key->at(i) || query->at(i) != value->at(i)) return std::nullopt;
  }
  query->back() = value->back();
  return query;
}

SizeList ShapeReader::of_embedding(const jit::Node* node) {
  SizeList sizes = input(node, 1);
  const SizeList& weight = input(node);
  if (!sizes || !weight || weight->size() != 2) return std::nullopt;
  sizes->push_back(weight->at(1));
  return sizes;
}

SizeList ShapeReader::of_pad(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto amounts = constant_ints(node->input(1));  // left, right, top, bottom, and so on
  if (!sizes || !amounts || amounts->size() > 2 * sizes->size()) return std::nullopt;
  for (size_t i = 0; i + 1 < amounts->size(); i += 2) {
    SizeId& size = sizes->at(sizes->size() - 1 - i / 2);
    size = sizes_.scaled(size, 1, amounts->at(i) + amounts->at(i + 1));
  }
  return sizes;
}

}  // namespace bnfold
