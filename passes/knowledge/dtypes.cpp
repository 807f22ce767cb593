#include "knowledge/dtypes.h"

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The dtype of the output is that of the first input.
bool keeps_dtype(const jit::Node* node) {
  static const OperatorNames casts = {"to", "float", "half", "double", "softmax", "log_softmax", "cumsum"};
  static const OperatorNames views = {"view",      "reshape", "flatten", "permute", "transpose",       "squeeze",
                                      "unsqueeze", "slice",   "chunk",   "split",   "split_with_sizes"};
  if (is_one_of(node, views)) return !has_argument(node, "dtype");  // view(dtype) reads the memory as another one
  return (keeps_sizes(node) || keeps_channels(node)) && !is_one_of(node, casts);
}

class Walk {
 public:
  explicit Walk(const ParameterStore& store) : store_(store) {}

  std::optional<at::ScalarType> of(const jit::Value* value) {
    static const OperatorNames promoting = {"add", "add_", "sub", "sub_", "mul", "mul_"};
    while (--steps_ >= 0) {
      const jit::Node* node = value->node();
      if (is_layer(node)) return of_layer(node);
      if (is_one_of(node, {"cat", "concat"})) return of_all(node->input(0)->node()->inputs());
      if (is_one_of(node, promoting) && node->input(1)->type()->kind() == c10::TypeKind::TensorType) {
        return of_all(node->inputs().slice(0, 2));
      }
      if (node->kind() == jit::prim::ListUnpack) {
        value = node->input();
      } else if (keeps_dtype(node) || is_one_of(node, promoting)) {
        value = node->input(0);
      } else {
        return of_static(value);
      }
    }
    return std::nullopt;
  }

 private:
  std::optional<at::ScalarType> of_layer(const jit::Node* node) const {
    for (const jit::Value* input : node->inputs()) {
      if (const auto dtype = of_static(input)) return dtype;
    }
    return std::nullopt;
  }

  std::optional<at::ScalarType> of_static(const jit::Value* value) const {
    const auto tensor = store_.read(value);
    return tensor && tensor->defined() ? std::optional<at::ScalarType>(tensor->scalar_type()) : std::nullopt;
  }

  template <typename Values>
  std::optional<at::ScalarType> of_all(const Values& values) {
    std::optional<at::ScalarType> common;
    for (const jit::Value* value : values) {
      const auto dtype = of(value);
      if (!dtype || (common && dtype != common)) return std::nullopt;
      common = dtype;
    }
    return common;
  }

  const ParameterStore& store_;
  int steps_ = 256;  // since a value may be reached on many ways
};

}  // namespace

bool is_layer(const jit::Node* node) {
  return is_convolution(node) || is_one_of(node, {"linear", "matmul", "mm", "bmm", "addmm"});
}

std::optional<at::ScalarType> dtype_of(const jit::Value* value, const ParameterStore& store) {
  return Walk(store).of(value);
}

}  // namespace bnfold
