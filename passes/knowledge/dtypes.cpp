#include "knowledge/dtypes.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_cast(const jit::Node* node) {
  return is_one_of(node, {"to", "type_as"});
}

// The value to whose dtype a cast goes; null where there is none.
const jit::Value* model_of(const jit::Node* cast) {
  if (has_argument(cast, "other")) return cast->namedInput("other");
  const jit::Node* dtype = has_argument(cast, "dtype") ? cast->namedInput("dtype")->node() : nullptr;
  return dtype != nullptr && dtype->kind() == jit::prim::dtype ? dtype->input() : nullptr;
}

// Whether it moves a value between devices only.
bool keeps_dtype(const jit::Node* cast) {
  return model_of(cast) == nullptr && is_left_out(cast, "dtype");
}

// The first value of which `value` has the dtype, whatever that is.
const jit::Value* source_of(const jit::Value* value) {
  while (true) {
    const jit::Node* node = value->node();
    const Dtype dtype = operator_of(node).dtype;
    const bool layer = dtype == Dtype::layer && (is_convolution(node) || node->kind() == jit::aten::linear);
    if (dtype != Dtype::same && !layer) return value;
    value = node->input(0);
  }
}

class Walk {
 public:
  explicit Walk(const ParameterStore& store) : store_(store) {}

  // Of what a layer reads, which takes its own dtype alone. Only a layer in the same block is reached whenever the value is made.
  std::optional<at::ScalarType> of_layers_behind(const jit::Value* value) const {
    for (const jit::Use& use : value->uses()) {
      const bool reads = use.offset == 0 && use.user->owningBlock() == value->node()->owningBlock();
      if (!reads || operator_of(use.user).dtype != Dtype::layer) continue;
      if (const auto dtype = of_layer(use.user)) return dtype;
    }
    return std::nullopt;
  }

  // Likewise, through what keeps the dtype.
  std::optional<at::ScalarType> of_readers(const jit::Value* value) {
    if (const auto dtype = of_layers_behind(value)) return dtype;
    for (const jit::Use& use : value->uses()) {
      const bool keeps = use.offset == 0 && operator_of(use.user).dtype == Dtype::same;
      if (!keeps || use.user->owningBlock() != value->node()->owningBlock() || --steps_ < 0) continue;
      if (const auto dtype = of_readers(use.user->output(0))) return dtype;
    }
    return std::nullopt;
  }

  std::optional<at::ScalarType> of(const jit::Value* value) {
    bool floating = false;  // whether an operator on the way gives the dtype of its input only where that is a floating one
    while (--steps_ >= 0) {
      if (const auto dtype = of_layers_behind(value)) return dtype;
      const jit::Node* node = value->node();
      std::optional<at::ScalarType> dtype;
      switch (node->kind() == jit::prim::ListUnpack ? Dtype::same : operator_of(node).dtype) {
        case Dtype::stated:
        case Dtype::summed:
        case Dtype::averaged:
          if (!is_left_out(node, "dtype")) {
            dtype = stated_dtype(node);
            break;
          }
          [[fallthrough]];
        case Dtype::floating:
        case Dtype::inexact:
          floating = true;
          [[fallthrough]];
        case Dtype::same:
          value = node->input(0);
          continue;
        case Dtype::like:
          value = node->input(1);
          continue;
        case Dtype::layer:
          dtype = of_layer(node);
          break;
        case Dtype::parts:
          if (const auto parts = items_of_list(node->input(0))) dtype = of_all(*parts);
          break;
        case Dtype::chosen:
          floating = true;
          dtype = of_tensors(node->inputs().slice(1));
          break;
        case Dtype::quotient:
        case Dtype::promoted:
          floating = true;
          dtype = of_tensors(node->inputs());
          break;
        case Dtype::unknown:
          dtype = node->kind() == jit::prim::If ? of_branches(value) : of_static(value);
          if (!dtype) dtype = of_readers(value);
      }
      return dtype && (!floating || at::isFloatingType(*dtype)) ? dtype : std::nullopt;
    }
    return std::nullopt;
  }

 private:
  // What numbers promote a floating tensor to is its own dtype. A trace makes tensors without dimensions of them.
  std::optional<at::ScalarType> of_tensors(at::ArrayRef<const jit::Value*> operands) {
    std::vector<const jit::Value*> tensors;
    std::copy_if(operands.begin(), operands.end(), std::back_inserter(tensors), [this](const jit::Value* operand) {
      if (!may_be_tensor(operand)) return false;
      const auto tensor = store_.read(operand);
      return !tensor || !tensor->defined() || tensor->dim() != 0 || tensor->is_complex();
    });
    return of_all(tensors);
  }

  std::optional<at::ScalarType> of_layer(const jit::Node* node) const {
    for (const jit::Value* operand : operands_of_layer(node)) {
      if (const auto dtype = of_static(operand)) return dtype;
    }
    return std::nullopt;
  }

  std::optional<at::ScalarType> of_static(const jit::Value* value) const {
    const auto tensor = store_.read(value);
    return tensor && tensor->defined() ? std::optional<at::ScalarType>(tensor->scalar_type()) : std::nullopt;
  }

  std::optional<at::ScalarType> of_branches(const jit::Value* value) {
    std::vector<const jit::Value*> made;
    for (const jit::Block* branch : value->node()->blocks()) made.push_back(branch->outputs().at(value->offset()));
    return of_all(made);
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
  return operator_of(node).dtype == Dtype::layer && node->kind().is_aten();
}

std::vector<const jit::Value*> operands_of_layer(const jit::Node* node) {
  const jit::Value* bias = has_argument(node, "bias") ? node->namedInput("bias") : nullptr;
  std::vector<const jit::Value*> operands;
  for (const jit::Value* input : node->inputs()) {
    if (input != bias && input->type()->kind() == c10::TypeKind::TensorType) operands.push_back(input);
  }
  return operands;
}

std::optional<at::ScalarType> stated_dtype(const jit::Node* node) {
  const auto number = has_argument(node, "dtype") ? constant_int(node->namedInput("dtype")) : std::nullopt;
  return number ? std::optional<at::ScalarType>(static_cast<at::ScalarType>(*number)) : std::nullopt;
}

bool is_cast_to_same(const jit::Node* node, const ParameterStore& store) {
  const bool strided =
      is_left_out(node, "layout") || constant_int(node->namedInput("layout")) == static_cast<int64_t>(at::kStrided);
  if (!is_cast(node) || !strided) return false;
  const jit::Value* value = node->input(0);
  const jit::Value* model = model_of(node);
  if (keeps_dtype(node) || (model != nullptr && source_of(model) == source_of(value))) return true;
  const auto after = model != nullptr ? dtype_of(model, store) : stated_dtype(node);
  return after && at::isFloatingType(*after) && dtype_of(value, store) == after;
}

std::optional<at::ScalarType> dtype_of(const jit::Value* value, const ParameterStore& store) {
  if (const auto dtype = Walk(store).of(value)) return dtype;
  return Walk(store).of_readers(value);
}

}  // namespace bnfold
