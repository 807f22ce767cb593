#include "graph/constants.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "graph/list_maker.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

std::optional<int64_t> constant_int(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isInt()) return std::nullopt;
  return constant->toInt();
}

std::optional<int64_t> from_front(int64_t dimension, std::optional<int64_t> rank) {
  if (dimension < 0 && rank) dimension += *rank;
  return dimension < 0 || (rank && dimension >= *rank) ? std::nullopt : std::optional<int64_t>(dimension);
}

std::optional<int64_t> constant_dimension(const jit::Value* value, std::optional<int64_t> rank) {
  const auto dimension = constant_int(value);
  return dimension ? from_front(*dimension, rank) : std::nullopt;
}

std::optional<std::vector<int64_t>> constant_dimensions(const jit::Value* value, std::optional<int64_t> rank) {
  const auto one = constant_int(value);
  auto dimensions = one ? std::vector<int64_t>{*one} : constant_ints(value);
  if (!dimensions) return std::nullopt;
  for (int64_t& dimension : *dimensions) {
    const auto place = from_front(dimension, rank);
    if (!place) return std::nullopt;
    dimension = *place;
  }
  return dimensions;
}

std::optional<bool> constant_bool(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isBool()) return std::nullopt;
  return constant->toBool();
}

std::optional<std::string> constant_string(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isString()) return std::nullopt;
  return constant->toStringRef();
}

std::optional<at::Tensor> constant_tensor(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isTensor() || !constant->toTensor().defined()) return std::nullopt;
  return constant->toTensor();
}

std::optional<double> constant_number(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant) return std::nullopt;
  if (constant->isInt() || constant->isDouble()) return constant->toScalar().toDouble();
  // A trace writes the 0 in 0 + x as a tensor.
  const bool wrapped = constant->isTensor() && constant->toTensor().defined() && constant->toTensor().dim() == 0 &&
                       constant->toTensor().scalar_type() == at::kLong;
  return wrapped ? std::optional<double>(constant->toTensor().item<double>()) : std::nullopt;
}

std::optional<std::vector<int64_t>> constant_ints(const jit::Value* value) {
  if (const auto constant = jit::toIValue(value)) {
    if (constant->isIntList()) return constant->toIntVector();
    if (constant->isInt()) return std::vector<int64_t>{constant->toInt()};
    return std::nullopt;
  }
  const auto items = items_of_list(value);
  if (!items) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const jit::Value* element : *items) {
    const auto number = constant_int(element);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

std::optional<std::vector<int64_t>> constant_ints(const jit::Value* value, size_t length) {
  auto numbers = constant_ints(value);
  if (numbers && numbers->size() == 1) numbers->resize(length, numbers->front());
  return numbers && numbers->size() == length ? numbers : std::nullopt;
}

bool is_list_of(const jit::Value* list, int64_t number) {
  const auto numbers = constant_ints(list);
  return numbers && std::all_of(numbers->begin(), numbers->end(), [number](int64_t one) { return one == number; });
}

std::optional<double> weight_in_sum(const jit::Node* sum, size_t place) {
  if (place == 0) return 1;
  const auto alpha = constant_number(sum->namedInput("alpha"));
  if (!alpha) return std::nullopt;
  return is_one_of(sum, {"sub", "sub_"}) ? -*alpha : *alpha;
}

bool has_argument(const jit::Node* node, const char* name) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  return schema != nullptr && schema->argumentIndexWithName(name);
}

bool is_left_out(const jit::Node* node, const char* name) {
  return !has_argument(node, name) || node->namedInput(name)->type()->kind() == c10::TypeKind::NoneType;
}

size_t argument_index(const jit::Node* node, const char* name) {
  return static_cast<size_t>(node->schema().argumentIndexWithName(name).value());
}

}  // namespace bnfold
