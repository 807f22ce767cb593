#include "static_values.h"

#include <torch/csrc/jit/ir/constants.h>

#include <string>
#include <unordered_set>

#include "memory.h"
#include "operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_pure(const jit::Node* node) {
  static const std::unordered_set<std::string> names = {
      "add",     "sub",        "mul", "div",  "rsqrt",   "sqrt",      "pow",     "neg",        "exp",    "abs",
      "sigmoid", "reciprocal", "to",  "view", "reshape", "unsqueeze", "squeeze", "contiguous", "expand", "softplus"};
  return node->kind().is_aten() && node->outputs().size() == 1 && names.count(node->kind().toUnqualString()) != 0;
}

// What the store knows of memory is that of leaves. A tensor that is computed from them is no constant where it is written in place.
bool is_written(const jit::Value* value) {
  if (may_return_its_input(value->node())) return false;
  const Writers writers = writers_of(value, nullptr);
  return writers.unknown || !writers.nodes.empty();
}

class Evaluation {
 public:
  explicit Evaluation(const ParameterStore& store) : store_(store) {}

  std::optional<c10::IValue> of(jit::Value* value) {
    if (const auto tensor = store_.read(value)) {
      if (!tensor->defined()) return c10::IValue();
      if (leaf == nullptr) leaf = value;
      return c10::IValue(*tensor);
    }
    if (const auto constant = jit::toIValue(value)) return constant;
    jit::Node* node = value->node();
    if (node->kind() == jit::prim::ListConstruct) return list(node);
    if (!is_pure(node) || is_written(value) || --steps_ < 0) return std::nullopt;
    jit::Stack stack;
    for (jit::Value* input : node->inputs()) {
      const auto operand = of(input);
      if (!operand) return std::nullopt;
      stack.push_back(*operand);
    }
    try {
      node->getOperation()(stack);
    } catch (const std::exception&) {
      return std::nullopt;  // the graph itself would fail here
    }
    return stack.back();
  }

  jit::Value* leaf = nullptr;

 private:
  std::optional<c10::IValue> list(const jit::Node* node) {
    std::vector<int64_t> numbers;
    for (const jit::Value* element : node->inputs()) {
      const auto number = jit::toIValue(element);
      if (!number || !number->isInt()) return std::nullopt;
      numbers.push_back(number->toInt());
    }
    return c10::IValue(numbers);
  }

  const ParameterStore& store_;
  int steps_ = 24;  // a frozen batch norm has 8
};

}  // namespace

std::optional<StaticTensor> static_tensor(const ParameterStore& store, jit::Value* value) {
  Evaluation evaluation(store);
  const auto result = evaluation.of(value);
  if (!result || !result->isTensor() || evaluation.leaf == nullptr) return std::nullopt;
  return StaticTensor{result->toTensor(), evaluation.leaf};
}

}  // namespace bnfold
