#include "fuse/symbolic_ints.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operators.h"
#include "knowledge/extents.h"

namespace bnfold {

namespace jit = torch::jit;

std::string SymbolicInts::name_of(const jit::Value* value) {
  return fmt::format("value {}", numbered_.emplace(value, numbered_.size()).first->second);
}

SizeId SymbolicInts::unknown_size(const jit::Value* value, size_t dimension) {
  return sizes_.unknown(fmt::format("{} along {}", name_of(value), dimension));
}

SizeList SymbolicInts::unknown_sizes(const jit::Value* value, size_t rank) {
  SizeList sizes(std::in_place);
  for (size_t i = 0; i < rank; ++i) sizes->push_back(unknown_size(value, i));
  return sizes;
}

std::optional<SizeId> SymbolicInts::number(const jit::Value* value) {
  if (const auto constant = constant_int(value)) return sizes_.constant(*constant);
  const auto tensor = constant_tensor(value);
  if (tensor && tensor->dim() == 0 && tensor->scalar_type() == at::kLong) return sizes_.constant(tensor->item<int64_t>());
  const auto found = numbers_.find(value);
  if (found != numbers_.end()) return found->second;
  auto number = computed(value);
  if (!number && value->type()->kind() == c10::TypeKind::IntType) number = sizes_.number_that_may_be_negative(name_of(value));
  if (number) numbers_.emplace(value, *number);
  return number;
}

std::optional<SizeId> SymbolicInts::computed(const jit::Value* value) {
  if (value->node()->kind() != jit::prim::ListUnpack) return made_by(value->node());
  const auto elements = list(value->node()->input());
  return elements && value->offset() < elements->size() ? std::optional<SizeId>(elements->at(value->offset())) : std::nullopt;
}

std::optional<SizeId> SymbolicInts::made_by(const jit::Node* node) {
  switch (node->kind()) {
    case jit::prim::NumToTensor:
    case jit::aten::Int:
    case jit::aten::IntImplicit:
    case jit::aten::ScalarImplicit:
      return number(node->input(0));
    case jit::aten::size:
      return size_read_by(node);
    case jit::aten::__getitem__:
      return element_read_by(node);
    case jit::aten::add:
    case jit::aten::sub:
    case jit::aten::mul:
    case jit::aten::floordiv:
    case jit::aten::floor_divide:
      return node->inputs().size() < 2 ? std::nullopt : arithmetic(node);
    default:
      return std::nullopt;
  }
}

std::optional<SizeId> SymbolicInts::size_read_by(const jit::Node* node) const {
  const SizeList& sizes = facts_.of(node->input(0)).sizes;
  if (!sizes || !has_argument(node, "dim")) return std::nullopt;
  const auto dimension = constant_dimension(node->namedInput("dim"), sizes->size());
  return dimension ? std::optional<SizeId>(sizes->at(*dimension)) : std::nullopt;
}

std::optional<SizeId> SymbolicInts::element_read_by(const jit::Node* node) {
  const auto elements = list(node->input(0));
  const auto place = elements ? constant_dimension(node->input(1), elements->size()) : std::nullopt;
  return place ? std::optional<SizeId>(elements->at(*place)) : std::nullopt;
}

std::optional<SizeId> SymbolicInts::arithmetic(const jit::Node* node) {
  const auto one = number(node->input(0));
  const auto other = number(node->input(1));
  if (!one || !other || (node->inputs().size() > 2 && constant_number(node->input(2)) != 1.0)) return std::nullopt;
  if (node->kind() == jit::aten::add) return sizes_.sum(*one, *other);
  if (node->kind() == jit::aten::sub) return sizes_.difference(*one, *other);
  if (node->kind() == jit::aten::mul) return sizes_.product(*one, *other);
  const auto divisor = sizes_.number(*other);
  return divisor && *divisor > 0 ? std::optional<SizeId>(sizes_.quotient(*one, *divisor)) : std::nullopt;
}

SizeList SymbolicInts::list(at::IntArrayRef numbers) {
  SizeList sizes(std::in_place);
  for (const int64_t number : numbers) sizes->push_back(sizes_.constant(number));
  return sizes;
}

SizeList SymbolicInts::list(const jit::Value* value) {
  if (const auto numbers = constant_ints(value)) return list(at::IntArrayRef(*numbers));
  if (value->type()->kind() != c10::TypeKind::ListType) return std::nullopt;
  return facts_.of(value).sizes;
}

SizeList SymbolicInts::list_made_by(const jit::Node* node) {
  if (node->outputs().size() != 1 || *node->output()->type() != *c10::ListType::ofInts()) return std::nullopt;
  if (maker_of_list(node->output()) == nullptr) return std::nullopt;
  switch (node->kind()) {
    case jit::prim::ListConstruct:
      return construct(node);
    case jit::aten::size:
      return node->inputs().size() == 1 ? facts_.of(node->input(0)).sizes : std::nullopt;
    case jit::aten::slice:
      return node->inputs().size() == 4 ? slice(node) : std::nullopt;
    case jit::aten::add:
      return joined(node);
    default:
      return std::nullopt;
  }
}

SizeList SymbolicInts::construct(const jit::Node* node) {
  SizeList sizes(std::in_place);
  for (const jit::Value* element : node->inputs()) {
    const auto size = number(element);
    if (!size) return std::nullopt;
    sizes->push_back(*size);
  }
  return sizes;
}

SizeList SymbolicInts::slice(const jit::Node* node) {
  const auto elements = list(node->input(0));
  const auto bounds = slice_bounds(node);
  if (!elements || !bounds || constant_int(node->namedInput("step")) != 1) return std::nullopt;
  const auto [first, last] = sliced_places(bounds->first, bounds->second, static_cast<int64_t>(elements->size()));
  return SizeList(std::in_place, elements->begin() + first, elements->begin() + last);
}

SizeList SymbolicInts::joined(const jit::Node* node) {
  auto elements = list(node->input(0));
  const auto more = list(node->input(1));
  if (!elements || !more) return std::nullopt;
  elements->insert(elements->end(), more->begin(), more->end());
  return elements;
}

}  // namespace bnfold
