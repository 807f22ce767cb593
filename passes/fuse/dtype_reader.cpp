#include "fuse/dtype_reader.h"

#include <algorithm>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "knowledge/dtypes.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_inexact(at::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
}

// A number that is none of those that widen a float, or no number at all.
bool is_real_number(const jit::Value* value) {
  const auto kind = value->type()->kind();
  if (kind == c10::TypeKind::IntType || kind == c10::TypeKind::FloatType) return true;
  return kind == c10::TypeKind::NumberType && constant_number(value).has_value();
}

// Of a constant weight, or another constant that a layer multiplies; nothing where it has none.
std::optional<at::ScalarType> dtype_of_weight(const jit::Node* layer) {
  for (const jit::Value* operand : operands_of_layer(layer)) {
    const auto tensor = constant_tensor(operand);
    if (tensor && is_inexact(tensor->scalar_type())) return tensor->scalar_type();
  }
  return std::nullopt;
}

}  // namespace

const DtypeFact& DtypeReader::input(const jit::Node* node, size_t place) const {
  return facts_.of(node->input(place)).dtype;
}

DtypeFact DtypeReader::of_constant(at::ScalarType dtype) {
  const auto [found, is_new] = constants_.emplace(dtype, static_cast<int>(roots_.size()));
  if (is_new) roots_.push_back(nullptr);
  return {found->second, is_inexact(dtype)};
}

DtypeFact DtypeReader::of_root(const jit::Value* root) {
  const auto learned = learned_dtypes_.find(root);
  if (learned != learned_dtypes_.end()) return of_constant(learned->second);
  const auto [found, is_new] = numbers_.emplace(root, static_cast<int>(roots_.size()));
  if (is_new) roots_.push_back(root);
  return {found->second, learned_inexact_.count(root) != 0};
}

DtypeFact DtypeReader::of(const jit::Node* node, Fact& fact) {
  if (node->kind() == jit::prim::ListUnpack) {
    const jit::Node* list = maker_of_list(node->input());
    if (list == nullptr) return fact.dtype;
    const Shape shape = operator_of(list).shape;
    return shape == Shape::pieces || shape == Shape::unbound ? input(list) : fact.dtype;
  }
  switch (operator_of(node).dtype) {
    case Dtype::same:
      return input(node);
    case Dtype::floating:
      return is_floating(input(node)) ? input(node) : fact.dtype;
    case Dtype::inexact:
      return input(node).inexact ? input(node) : DtypeFact{fact.dtype.number, true};
    case Dtype::like:
      return input(node, 1);
    case Dtype::stated:
      return is_left_out(node, "dtype") ? input(node) : of_cast(node, fact.dtype);
    case Dtype::summed:
      if (!is_left_out(node, "dtype")) return of_cast(node, fact.dtype);
      return input(node).inexact ? input(node) : fact.dtype;
    case Dtype::averaged:
      return is_left_out(node, "dtype") ? DtypeFact{input(node).number, true} : of_cast(node, fact.dtype);
    case Dtype::promoted:
    case Dtype::quotient:
      return of_operands(node->inputs(), fact);
    case Dtype::chosen:
      return of_operands(node->inputs().slice(1), fact);
    case Dtype::layer:
      return is_layer(node) ? of_layer(node) : fact.dtype;
    case Dtype::parts:
      return of_list(node->input(0), fact.dtype);
    case Dtype::unknown:
      break;
  }
  return fact.dtype;
}

// All operands have one, or it raises: a constant one, where that of any is.
DtypeFact DtypeReader::of_layer(const jit::Node* node) {
  if (const auto dtype = dtype_of_weight(node)) return of_constant(*dtype);
  const auto operands = operands_of_layer(node);
  const auto known = std::find_if(operands.begin(), operands.end(),
                                  [this](const jit::Value* operand) { return is_constant(facts_.of(operand).dtype); });
  return facts_.of(known == operands.end() ? operands.front() : *known).dtype;
}

DtypeFact DtypeReader::of_cast(const jit::Node* node, DtypeFact otherwise) {
  const auto dtype = stated_dtype(node);
  return dtype ? of_constant(*dtype) : otherwise;
}

DtypeFact DtypeReader::of_list(const jit::Value* list, DtypeFact otherwise) const {
  const auto parts = items_of_list(list);
  if (!parts || parts->empty()) return otherwise;
  const DtypeFact first = facts_.of(parts->front()).dtype;
  const bool alike =
      std::all_of(parts->begin(), parts->end(), [&](const jit::Value* part) { return facts_.of(part).dtype == first; });
  return alike ? first : otherwise;
}

// That of all operands which are tensors, where it is one and inexact. Numbers don't change it, nor does a tensor without dimensions beside one
// that has some.
DtypeFact DtypeReader::of_operands(at::ArrayRef<const jit::Value*> operands, Fact& fact) const {
  std::optional<DtypeFact> common;
  for (const jit::Value* operand : operands) {
    const auto tensor = constant_tensor(operand);
    if (tensor && tensor->dim() == 0 && !tensor->is_complex() && fact.sizes && !fact.sizes->empty()) {
      fact.assumed_for_dtype.insert(fact.assumed.begin(), fact.assumed.end());
      continue;
    }
    if (!is_tensor(operand)) {
      if (!is_real_number(operand) && operand->type()->kind() != c10::TypeKind::NoneType) return fact.dtype;
      continue;
    }
    if (common && !(facts_.of(operand).dtype == *common)) return fact.dtype;
    common = facts_.of(operand).dtype;
  }
  return common && common->inexact ? *common : fact.dtype;
}

bool DtypeReader::is_constant(const DtypeFact& dtype) const {
  return dtype.number >= 0 && roots_[dtype.number] == nullptr;
}

bool DtypeReader::is_floating(const DtypeFact& dtype) const {
  return std::any_of(constants_.begin(), constants_.end(), [&](const auto& constant) {
    return constant.second == dtype.number && c10::isFloatingType(constant.first);
  });
}

bool DtypeReader::learn(const jit::Node* node) {
  const Dtype kind = operator_of(node).dtype;
  if (kind == Dtype::averaged && is_left_out(node, "dtype")) return learn(node, node->input(0), std::nullopt);
  const auto dtype = is_layer(node) ? dtype_of_weight(node) : std::nullopt;
  if (!dtype) return false;
  bool learned = false;
  for (const jit::Value* operand : operands_of_layer(node)) learned |= learn(node, operand, dtype);
  return learned;
}

// What runs whenever `value` is made proves its dtype, where it takes no other; without `dtype` none but inexact ones.
bool DtypeReader::learn(const jit::Node* reader, const jit::Value* value, std::optional<at::ScalarType> dtype) {
  const int number = facts_.of(value).dtype.number;
  const jit::Value* root = number >= 0 ? roots_[number] : nullptr;
  if (root == nullptr || root->node()->owningBlock() != reader->owningBlock()) return false;
  return dtype ? learned_dtypes_.emplace(root, *dtype).second : learned_inexact_.insert(root).second;
}

}  // namespace bnfold
