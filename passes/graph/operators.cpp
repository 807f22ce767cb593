#include "graph/operators.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::unordered_set<c10::Symbol> symbols(std::initializer_list<const char*> names) {
  std::unordered_set<c10::Symbol> symbols;
  for (const char* name : names) symbols.insert(c10::Symbol::fromQualString(name));
  return symbols;
}

}  // namespace

bool is_one_of(const jit::Node* node, const OperatorNames& names) {
  if (!node->kind().is_aten()) return false;
  const std::string_view name = node->kind().toUnqualString();
  return std::find(names.begin(), names.end(), name) != names.end() && !has_argument(node, "out");
}

bool is_tensor(const jit::Value* value) {
  return value->type()->kind() == c10::TypeKind::TensorType;
}

bool may_be_tensor(const jit::Value* value) {
  return is_tensor(value) || *value->type() == *c10::OptionalType::ofTensor();
}

std::optional<ReadSize> size_read(const jit::Value* number) {
  const jit::Node* node = number->node();
  const auto read = [](const jit::Value* tensor, std::optional<int64_t> dimension) {
    return dimension ? std::optional<ReadSize>({tensor, *dimension}) : std::nullopt;
  };
  if (node->kind() == jit::aten::size && node->inputs().size() == 2) return read(node->input(0), constant_int(node->input(1)));
  if (node->kind() == jit::aten::len && is_tensor(node->input())) return read(node->input(), 0);
  if (node->kind() != jit::aten::__getitem__ && node->kind() != jit::prim::ListUnpack) return std::nullopt;
  const jit::Value* tensor = tensor_of_sizes(node->input(0));
  if (tensor == nullptr) return std::nullopt;
  const bool unpacked = node->kind() == jit::prim::ListUnpack;
  return read(tensor, unpacked ? static_cast<int64_t>(number->offset()) : constant_int(node->input(1)));
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
  return name.at(name.find('d', name.find_first_of("123")) - 1) - '0';
}

std::optional<bool> pads_with_constant(const jit::Node* node) {
  if (operator_of(node).shape != Shape::padded) return false;
  if (!has_argument(node, "mode")) return true;
  const auto mode = constant_string(node->namedInput("mode"));
  return mode ? std::optional<bool>(*mode == "constant") : std::nullopt;
}

bool reads_metadata_only(const jit::Use& use) {
  static const auto readers = symbols(
      {"aten::dim", "aten::size", "aten::len", "aten::numel", "aten::is_floating_point", "aten::is_complex", "prim::dtype",
       "prim::device", "prim::layout", "prim::is_cuda", "prim::is_sparse", "prim::is_quantized", "prim::is_nested",
       "prim::requires_grad", "aten::zeros_like", "aten::ones_like", "aten::empty_like", "aten::_assert_tensor_metadata"});
  static const auto by_second = symbols({"aten::reshape_as", "aten::view_as", "aten::expand_as", "aten::to", "aten::type_as"});
  const c10::Symbol kind = use.user->kind();
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

bool changes_dimensions_in_place(const jit::Graph& graph) {
  static const OperatorNames names = {"squeeze_",    "unsqueeze_", "resize_",   "resize_as_", "set_",
                                      "as_strided_", "transpose_", "swapaxes_", "swapdims_",  "t_"};
  return any_node(graph, [](const jit::Node* node) { return is_one_of(node, names) || has_argument(node, "out"); });
}

bool may_return_its_input(const jit::Node* node) {
  return operator_of(node).storage != Storage::fresh;
}

}  // namespace bnfold
