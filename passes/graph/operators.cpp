#include "graph/operators.h"

#include <algorithm>
#include <string_view>

#include "graph/constants.h"
#include "graph/operator_table.h"

namespace bnfold {

namespace jit = torch::jit;

bool is_one_of(const jit::Node* node, const OperatorNames& names) {
  return node->kind().is_aten() && names.count(node->kind().toUnqualString()) != 0 && !has_argument(node, "out");
}

bool is_tensor(const jit::Value* value) {
  return value->type()->kind() == c10::TypeKind::TensorType;
}

bool is_step(const jit::Node* node) {
  return std::string_view(node->kind().toQualString()).substr(0, 8) == "mkldnn::";
}

bool is_convolution(const jit::Node* node) {
  const Shape shape = operator_of(node).shape;
  return shape == Shape::convolution || shape == Shape::batched_convolution;
}

std::optional<bool> is_transposed(const jit::Node* convolution) {
  if (has_argument(convolution, "transposed")) return constant_bool(convolution->namedInput("transposed"));
  return std::string_view(convolution->kind().toUnqualString()).substr(0, 14) == "conv_transpose";
}

bool is_dropout(const jit::Node* node) {
  static const OperatorNames names = {"dropout",  "feature_dropout",  "alpha_dropout",  "feature_alpha_dropout",
                                      "dropout_", "feature_dropout_", "alpha_dropout_", "feature_alpha_dropout_"};
  return is_one_of(node, names);
}

bool keeps_sizes(const jit::Node* node) {
  const Shape shape = operator_of(node).shape;
  return shape == Shape::same || shape == Shape::normalized || shape == Shape::sequences;
}

bool keeps_channels(const jit::Node* node) {
  const Shape shape = operator_of(node).shape;
  return shape == Shape::channels || shape == Shape::adapted || shape == Shape::bordered || shape == Shape::interpolated;
}

int64_t spatial_dimensions(const jit::Node* node) {
  const std::string name = node->kind().toUnqualString();  // has 1d, 2d or 3d in it
  return name.at(name.find("d", name.find_first_of("123")) - 1) - '0';
}

std::optional<bool> pads_with_constant(const jit::Node* node) {
  if (operator_of(node).shape != Shape::padded) return false;
  if (!has_argument(node, "mode")) return true;
  const auto mode = constant_string(node->namedInput("mode"));
  return mode ? std::optional<bool>(*mode == "constant") : std::nullopt;
}

bool reads_metadata_only(const jit::Use& use) {
  static const std::unordered_set<std::string> readers = {
      "aten::dim",        "aten::size",         "aten::len",           "aten::numel",      "aten::is_floating_point",
      "aten::is_complex", "prim::dtype",        "prim::device",        "prim::layout",     "prim::is_cuda",
      "prim::is_sparse",  "prim::is_quantized", "prim::requires_grad", "aten::zeros_like", "aten::ones_like",
      "aten::empty_like", "aten::_assert_tensor_metadata"};
  static const std::unordered_set<std::string> by_second = {"aten::reshape_as", "aten::view_as", "aten::expand_as", "aten::to",
                                                            "aten::type_as"};
  const std::string kind = use.user->kind().toQualString();
  return readers.count(kind) != 0 || (by_second.count(kind) != 0 && use.offset != 0);
}

bool writes_into(const jit::Node* node, const jit::Value* value) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  if (schema == nullptr) return false;
  for (size_t i = 0; i < node->inputs().size() && i < schema->arguments().size(); ++i) {
    const c10::AliasInfo* alias = schema->arguments()[i].alias_info();
    if (node->inputs()[i] == value && alias != nullptr && alias->isWrite()) return true;
  }
  return false;
}

bool may_return_its_input(const jit::Node* node) {
  return operator_of(node).storage != Storage::fresh;
}

}  // namespace bnfold
