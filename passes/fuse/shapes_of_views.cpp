// The sizes of what sees a tensor otherwise, or copies it so, and of what is made of nothing.
#include <fmt/format.h>

#include <algorithm>

#include "fuse/shape_reader.h"
#include "graph/constants.h"
#include "graph/operator_table.h"
#include "knowledge/extents.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<int64_t> dimension_of(const jit::Node* node, size_t rank) {
  return has_argument(node, "dim") ? constant_dimension(node->namedInput("dim"), rank) : std::nullopt;
}

}  // namespace

SizeList ShapeReader::given(const jit::Node* node) {
  const auto sizes = ints_.list(node->input(0));
  const auto is_none = [this](SizeId size) { return sizes_.may_be_negative(size); };
  return sizes && std::any_of(sizes->begin(), sizes->end(), is_none) ? std::nullopt : sizes;
}

SizeList ShapeReader::listed(const jit::Node* node) {
  auto sizes = ints_.list(node->input(1));
  if (!sizes) return std::nullopt;
  std::optional<size_t> open;
  std::vector<SizeId> others;
  for (size_t i = 0; i < sizes->size(); ++i) {
    if (sizes_.number(sizes->at(i)) == -1 && !open) {
      open = i;
    } else if (sizes_.may_be_negative(sizes->at(i))) {
      return ints_.unknown_sizes(node->output(), sizes->size());
    } else {
      others.push_back(sizes->at(i));
    }
  }
  if (!open) return sizes;
  const SizeList& before = input(node);
  sizes->at(*open) = before ? sizes_.exact_quotient(*before, others) : ints_.unknown_size(node->output(), *open);
  return sizes;
}

SizeList ShapeReader::expanded(const jit::Node* node) {
  const SizeList& before = input(node);
  auto sizes = ints_.list(node->input(1));
  if (!before || !sizes || sizes->size() < before->size()) return std::nullopt;
  const size_t ahead = sizes->size() - before->size();
  for (size_t i = 0; i < sizes->size(); ++i) {
    const bool kept = sizes_.number(sizes->at(i)) == -1 && i >= ahead;
    if (!kept && sizes_.may_be_negative(sizes->at(i))) return ints_.unknown_sizes(node->output(), sizes->size());
    if (kept) sizes->at(i) = before->at(i - ahead);
  }
  return sizes;
}

SizeList ShapeReader::repeated(const jit::Node* node) {
  const SizeList& before = input(node);
  auto sizes = ints_.list(node->input(1));
  if (!before || !sizes || sizes->size() < before->size()) return std::nullopt;
  const size_t ahead = sizes->size() - before->size();
  for (size_t i = 0; i < sizes->size(); ++i) {
    if (sizes_.may_be_negative(sizes->at(i))) return ints_.unknown_sizes(node->output(), sizes->size());
    if (i >= ahead) sizes->at(i) = sizes_.product(sizes->at(i), before->at(i - ahead));
  }
  return sizes;
}

SizeList ShapeReader::flattened(const jit::Node* node) {
  SizeList sizes = input(node);
  if (!sizes || sizes->empty()) return std::nullopt;
  const auto first = constant_dimension(node->namedInput("start_dim"), sizes->size());
  const auto last = constant_dimension(node->namedInput("end_dim"), sizes->size());
  if (!first || !last || *first > *last) return std::nullopt;
  for (int64_t i = *first; i < *last; ++i) {
    sizes->at(*first) = sizes_.product(sizes->at(*first), sizes->at(*first + 1));
    sizes->erase(sizes->begin() + *first + 1);
  }
  return sizes;
}

SizeList ShapeReader::cut(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto dimension = sizes ? dimension_of(node, sizes->size()) : std::nullopt;
  if (!dimension) return std::nullopt;
  SizeId& size = sizes->at(*dimension);
  if (!has_argument(node, "length")) {
    size = sliced(node, size, *dimension);
  } else {
    const auto length = ints_.number(node->namedInput("length"));
    const bool known = length && !sizes_.may_be_negative(*length);
    size = known ? *length : ints_.unknown_size(node->output(), *dimension);
  }
  return sizes;
}

// What a slice leaves of a size.
SizeId ShapeReader::sliced(const jit::Node* node, SizeId size, size_t dimension) {
  const auto bounds = slice_bounds(node);
  const auto step = constant_int(node->namedInput("step"));
  if (!bounds || !step || *step <= 0) return ints_.unknown_size(node->output(), dimension);
  const auto [start, end] = *bounds;
  if (const auto whole = sizes_.number(size)) {
    const auto [first, last] = sliced_places(start, end, *whole);
    return sizes_.constant((last - first + *step - 1) / *step);
  }
  if (start == 0 && end == kSliceEnd) return sizes_.quotient(sizes_.scaled(size, 1, *step - 1), *step);
  return sizes_.unknown(fmt::format("slice {} {} {}", start, end, *step), {size});
}

SizeList ShapeReader::selected(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto dimension = sizes ? dimension_of(node, sizes->size()) : std::nullopt;
  if (!dimension) return std::nullopt;
  sizes->erase(sizes->begin() + *dimension);
  return sizes;
}

// An element of the list that chunk, split or unbind return.
SizeList ShapeReader::of_piece(const jit::Node* split, size_t piece) {
  const Shape kind = operator_of(split).shape;
  if (kind == Shape::unbound) return selected(split);
  SizeList sizes = kind == Shape::pieces ? input(split) : std::nullopt;
  const auto dimension = sizes ? dimension_of(split, sizes->size()) : std::nullopt;
  if (!dimension) return std::nullopt;
  SizeId& size = sizes->at(*dimension);
  const auto number = size_of_piece(split, piece, sizes_.number(size));
  size = number ? sizes_.constant(*number) : sizes_.unknown(fmt::format("{} piece {}", ints_.name_of(split->output()), piece));
  return sizes;
}

SizeList ShapeReader::rearranged(const jit::Node* node) {
  const SizeList& before = input(node);
  if (!before) return std::nullopt;
  const auto rank = static_cast<int64_t>(before->size());
  SizeList sizes = before;
  for (int64_t i = 0; i < rank; ++i) {
    const auto place = dimension_before(node, i, rank);
    if (!place || *place >= rank) return std::nullopt;
    sizes->at(i) = before->at(*place);
  }
  return sizes;
}

SizeList ShapeReader::unsqueezed(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto dimension = sizes ? dimension_of(node, sizes->size() + 1) : std::nullopt;
  if (!dimension) return std::nullopt;
  sizes->insert(sizes->begin() + *dimension, sizes_.constant(1));
  return sizes;
}

SizeList ShapeReader::squeezed(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto dimension = sizes ? dimension_of(node, sizes->size()) : std::nullopt;
  const auto size = dimension ? sizes_.number(sizes->at(*dimension)) : std::nullopt;
  if (!size) return std::nullopt;
  if (*size == 1) sizes->erase(sizes->begin() + *dimension);
  return sizes;
}

SizeList ShapeReader::shuffled(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto factor = constant_int(node->input(1));
  if (!sizes || sizes->size() != 4 || !factor || *factor <= 0) return std::nullopt;
  sizes->at(1) = sizes_.quotient(sizes->at(1), *factor * *factor);
  for (const size_t place : {2, 3}) sizes->at(place) = sizes_.scaled(sizes->at(place), *factor, 0);
  return sizes;
}

SizeList ShapeReader::unshuffled(const jit::Node* node) {
  SizeList sizes = input(node);
  const auto factor = constant_int(node->input(1));
  if (!sizes || sizes->size() != 4 || !factor || *factor <= 0) return std::nullopt;
  sizes->at(1) = sizes_.scaled(sizes->at(1), *factor * *factor, 0);
  for (const size_t place : {2, 3}) sizes->at(place) = sizes_.quotient(sizes->at(place), *factor);
  return sizes;
}

}  // namespace bnfold
