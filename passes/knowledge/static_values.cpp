#include "knowledge/static_values.h"

#include <torch/csrc/jit/ir/constants.h>

#include "graph/operators.h"
#include "knowledge/memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// batch_norm without statistics, which weight standardization may call on a weight
bool standardizes(const jit::Node* node) {
  const auto is_none = [node](const char* input) { return node->namedInput(input)->type()->kind() == c10::TypeKind::NoneType; };
  return node->kind() == jit::aten::batch_norm && is_none("running_mean") && is_none("running_var");
}

// A size, which a trace takes through a tensor.
bool counts(const jit::Node* node) {
  const bool one_size = is_one_of(node, {"size"}) && node->inputs().size() == 2;
  return one_size || is_one_of(node, {"Int"}) || node->kind() == jit::prim::NumToTensor;
}

bool is_pure(const jit::Node* node) {
  // clang-format off: a line for each of them would hide the code around
  static const OperatorNames names = {
      "add", "sub", "mul", "div", "rsqrt", "sqrt", "pow", "neg", "exp", "abs", "sigmoid", "reciprocal", "softplus", "tanh",
      "square", "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "to", "detach", "clone", "contiguous", "view", "view_as",
      "reshape", "reshape_as", "flatten", "unsqueeze", "squeeze", "expand", "expand_as", "select", "slice", "t", "transpose",
      "permute", "flip",
      // what torch.nn.utils normalizes weights with
      "sum", "mean", "var", "std", "norm", "norm_except_dim", "linalg_vector_norm", "_weight_norm", "mv", "dot", "vdot", "mm",
      "matmul", "tril", "triu", "diagonal", "mH", "matrix_exp", "linalg_matrix_exp", "linalg_householder_product"};
  // clang-format on
  if (node->outputs().size() != 1) return false;
  return is_one_of(node, names) || standardizes(node) || counts(node);
}

// What the store knows of memory is that of leaves. A tensor that is computed from them is no constant where it is written in place.
bool is_written(const jit::Value* value) {
  if (value->type()->kind() != c10::TypeKind::TensorType || may_return_its_input(value->node())) return false;
  return may_be_written(value);
}

class Evaluation {
 public:
  explicit Evaluation(const ParameterStore& store) : store_(store) {}

  std::optional<c10::IValue> of(jit::Value* value) {
    if (const auto tensor = store_.read(value)) {
      if (!tensor->defined()) return c10::IValue();
      if (leaf == nullptr || (!trainable_ && tensor->requires_grad())) {
        leaf = value;
        trainable_ = tensor->requires_grad();
      }
      return c10::IValue(*tensor);
    }
    if (const auto constant = jit::toIValue(value)) return constant;
    jit::Node* node = value->node();
    if (node->kind() == jit::prim::ListConstruct) return list(node);
    if (!is_pure(node) || --steps_ < 0) return std::nullopt;
    jit::Stack stack;
    for (jit::Value* input : node->inputs()) {
      const auto operand = of(input);
      if (!operand) return std::nullopt;
      stack.push_back(*operand);
    }
    if (is_written(value)) return std::nullopt;
    try {
      node->getOperation()(stack);
    } catch (const std::exception&) {
      return std::nullopt;  // the graph itself would fail here
    }
    return stack.back();
  }

  jit::Value* leaf = nullptr;  // the first that is trainable, or the first

 private:
  std::optional<c10::IValue> list(jit::Node* node) {
    std::vector<int64_t> numbers;
    for (jit::Value* element : node->inputs()) {
      const auto number = of(element);
      if (!number || !number->isInt()) return std::nullopt;
      numbers.push_back(number->toInt());
    }
    return c10::IValue(numbers);
  }

  const ParameterStore& store_;
  bool trainable_ = false;
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
