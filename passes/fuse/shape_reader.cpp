#include "fuse/shape_reader.h"

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/reduction.h"

namespace bnfold {

namespace jit = torch::jit;

const SizeList& ShapeReader::input(const jit::Node* node, size_t place) const {
  return facts_.of(node->input(place)).sizes;
}

SizeList ShapeReader::of(const jit::Value* output) {
  const jit::Node* node = output->node();
  if (node->kind() == jit::prim::ListUnpack) {
    const jit::Node* split = maker_of_list(node->input());
    return split == nullptr ? std::nullopt : of_piece(split, output->offset());
  }
  if (node->kind() == jit::prim::NumToTensor) return SizeList(std::in_place);
  switch (operator_of(node).shape) {
    case Shape::same:
    case Shape::normalized:
    case Shape::sequences:
      return input(node);
    case Shape::like:
      return input(node, 1);
    case Shape::broadcast:
      return of_broadcast(node);
    case Shape::channels:
      return of_pool(node);
    case Shape::adapted:
      return of_adaptive_pool(node);
    case Shape::bordered:
    case Shape::padded:
      return of_pad(node);
    case Shape::interpolated:
      return of_interpolation(node);
    case Shape::convolution:
    case Shape::batched_convolution:
      return of_conv(node);
    case Shape::linear:
      return of_linear(node);
    case Shape::product:
    case Shape::matrix:
    case Shape::matrices:
      return of_product(node);
    case Shape::attention:
      return of_attention(node);
    case Shape::embedded:
      return of_embedding(node);
    case Shape::concatenation:
      return of_concatenation(node);
    case Shape::stacked:
      return of_stack(node);
    case Shape::given:
      return given(node);
    case Shape::listed:
      return listed(node);
    case Shape::expanded:
      return expanded(node);
    case Shape::repeated:
      return repeated(node);
    case Shape::flattened:
      return flattened(node);
    case Shape::permuted:
    case Shape::transposed:
      return rearranged(node);
    case Shape::unsqueezed:
      return unsqueezed(node);
    case Shape::squeezed:
      return squeezed(node);
    case Shape::selected:
      return selected(node);
    case Shape::cut:
      return cut(node);
    case Shape::reduced:
      return of_reduction(node);
    case Shape::shuffled:
      return shuffled(node);
    case Shape::unshuffled:
      return unshuffled(node);
    case Shape::pieces:  // lists
    case Shape::unbound:
    case Shape::resized:
    case Shape::gathered:
    case Shape::windowed:
    case Shape::diagonal:
    case Shape::divided:
    case Shape::tiled:
    case Shape::equation:
    case Shape::unknown:
      break;
  }
  return std::nullopt;
}

SizeList ShapeReader::of_broadcast(const jit::Node* node) {
  SizeList result(std::in_place);
  for (const jit::Value* operand : node->inputs()) {
    if (!may_be_tensor(operand)) continue;
    const SizeList& sizes = facts_.of(operand).sizes;
    if (!sizes) return std::nullopt;
    if (sizes->size() > result->size()) {
      result->insert(result->begin(), sizes->size() - result->size(), sizes_.constant(1));
    }
    const size_t ahead = result->size() - sizes->size();
    for (size_t i = 0; i < sizes->size(); ++i) result->at(ahead + i) = sizes_.broadcast(result->at(ahead + i), sizes->at(i));
  }
  return result;
}

namespace {

// The list of tensors that `node` reads, null where something could write into it.
const jit::Node* parts_of(const jit::Node* node) {
  const auto items = items_of_list(node->input(0));
  return items && !items->empty() ? node->input(0)->node() : nullptr;
}

}  // namespace

SizeList ShapeReader::of_concatenation(const jit::Node* node) {
  const jit::Node* list = parts_of(node);
  if (list == nullptr) return std::nullopt;
  SizeList sizes = input(list);
  const auto joined = sizes ? constant_dimension(node->namedInput("dim"), sizes->size()) : std::nullopt;
  // An empty vector is left out of what else is joined.
  if (!joined || sizes->size() < 2) return std::nullopt;
  for (const jit::Value* part : list->inputs().slice(1)) {
    const SizeList& more = facts_.of(part).sizes;
    if (!more || more->size() != sizes->size()) return std::nullopt;
    for (size_t i = 0; i < sizes->size(); ++i) {
      if (static_cast<int64_t>(i) == *joined) {
        sizes->at(i) = sizes_.sum(sizes->at(i), more->at(i));
      } else if (sizes_.number(more->at(i))) {
        sizes->at(i) = more->at(i);
      }
    }
  }
  return sizes;
}

// All parts have the same sizes, or it raises.
SizeList ShapeReader::of_stack(const jit::Node* node) {
  const jit::Node* list = parts_of(node);
  if (list == nullptr) return std::nullopt;
  SizeList sizes = input(list);
  const auto place = sizes ? constant_dimension(node->namedInput("dim"), sizes->size() + 1) : std::nullopt;
  if (!place) return std::nullopt;
  for (const jit::Value* part : list->inputs().slice(1)) {
    const SizeList& more = facts_.of(part).sizes;
    if (!more || more->size() != sizes->size()) return std::nullopt;
    for (size_t i = 0; i < sizes->size(); ++i) {
      if (sizes_.number(more->at(i))) sizes->at(i) = more->at(i);
    }
  }
  sizes->insert(sizes->begin() + *place, sizes_.constant(static_cast<int64_t>(list->inputs().size())));
  return sizes;
}

SizeList ShapeReader::of_reduction(const jit::Node* node) {
  if (!has_argument(node, "dim")) return SizeList(std::in_place);
  const SizeList& sizes = input(node);
  const auto reduction = sizes ? reduction_of(node, sizes->size()) : std::nullopt;
  if (!reduction) return std::nullopt;
  SizeList result(std::in_place);
  auto reduced = reduction->dimensions.begin();
  for (size_t i = 0; i < sizes->size(); ++i) {
    if (reduced == reduction->dimensions.end() || *reduced != static_cast<int64_t>(i)) {
      result->push_back(sizes->at(i));
      continue;
    }
    ++reduced;
    if (reduction->keeps) result->push_back(sizes_.constant(1));
  }
  return result;
}

}  // namespace bnfold
