#include "fuse/facts_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/graph_walk.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_tensor(const jit::Value* value) {
  return value->type()->kind() == c10::TypeKind::TensorType;
}

// The name of an operator, without the underscore of what works in place.
std::string operation_of(const jit::Node* node) {
  std::string name = node->kind().is_aten() ? node->kind().toUnqualString() : "";
  if (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

bool is_in_place(const jit::Node* node) {
  return node->kind().is_aten() && !node->inputs().empty() && writes_into(node, node->input(0)) &&
         std::string_view(node->kind().toUnqualString()).back() == '_';
}

// One element for each of their first input; a second tensor is broadcast.
bool is_elementwise(const std::string& operation) {
  static const OperatorNames names = {
      "add",       "sub",       "mul",  "div",   "rsub",     "pow",         "maximum",     "minimum",    "clamp",
      "clamp_min", "clamp_max", "relu", "relu6", "hardtanh", "sigmoid",     "tanh",        "silu",       "gelu",
      "mish",      "elu",       "selu", "celu",  "softplus", "hardswish",   "hardsigmoid", "leaky_relu", "abs",
      "exp",       "log",       "neg",  "sqrt",  "rsqrt",    "square",      "reciprocal",  "sin",        "cos",
      "erf",       "floor",     "ceil", "round", "sign",     "masked_fill", "where",       "lerp",       "logical_not",
      "eq",        "ne",        "lt",   "le",    "gt",       "ge",          "logical_and", "log_sigmoid"};
  return names.count(operation) != 0;
}

// Operators in place that leave the sizes of what they write.
bool keeps_sizes_in_place(const jit::Node* node) {
  static const OperatorNames others = {"copy",          "fill",
                                       "zero",          "index_put",
                                       "index_add",     "index_copy",
                                       "index_fill",    "masked_fill",
                                       "scatter",       "scatter_add",
                                       "normal",        "uniform",
                                       "bernoulli",     "detach",
                                       "addcmul",       "addcdiv",
                                       "threshold",     "requires_grad",
                                       "dropout",       "feature_dropout",
                                       "alpha_dropout", "feature_alpha_dropout"};
  const std::string operation = operation_of(node);
  return is_in_place(node) && (is_elementwise(operation) || others.count(operation) != 0);
}

// Something resizes a tensor, or may: then no size that is read of the graph is certain.
bool may_resize(const jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&found](const jit::Node* node) {
    for (const jit::Value* input : node->inputs()) {
      found |= is_tensor(input) && writes_into(node, input) && !keeps_sizes_in_place(node) && !is_step(node);
    }
  });
  return found;
}

// Operators whose result has the dtype of the first input, whatever it is.
bool keeps_every_dtype(const std::string& operation) {
  static const OperatorNames names = {"view",
                                      "reshape",
                                      "view_as",
                                      "reshape_as",
                                      "flatten",
                                      "permute",
                                      "transpose",
                                      "t",
                                      "squeeze",
                                      "unsqueeze",
                                      "expand",
                                      "expand_as",
                                      "slice",
                                      "select",
                                      "narrow",
                                      "contiguous",
                                      "clone",
                                      "detach",
                                      "alias",
                                      "pad",
                                      "constant_pad_nd",
                                      "reflection_pad1d",
                                      "reflection_pad2d",
                                      "reflection_pad3d",
                                      "replication_pad1d",
                                      "replication_pad2d",
                                      "replication_pad3d",
                                      "repeat",
                                      "flip",
                                      "roll",
                                      "index",
                                      "index_select",
                                      "embedding",
                                      "gather",
                                      "max_pool1d",
                                      "max_pool2d",
                                      "max_pool3d",
                                      "amax",
                                      "amin",
                                      "relu",
                                      "dropout",
                                      "feature_dropout",
                                      "zeros_like",
                                      "ones_like",
                                      "empty_like",
                                      "pixel_shuffle",
                                      "channel_shuffle",
                                      "masked_fill"};
  return names.count(operation) != 0;
}

// The dtype of the result is that of all operands together.
bool promotes(const std::string& operation) {
  static const OperatorNames names = {"add",   "sub",       "mul",       "div",     "rsub",    "pow",
                                      "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "where"};
  return names.count(operation) != 0;
}

// It is that of the first input, or of all operands, where that is one of floating-point or complex numbers.
bool keeps_inexact_dtypes(const std::string& operation) {
  static const OperatorNames names = {"leaky_relu",
                                      "relu6",
                                      "hardtanh",
                                      "sigmoid",
                                      "tanh",
                                      "silu",
                                      "gelu",
                                      "mish",
                                      "elu",
                                      "selu",
                                      "celu",
                                      "softplus",
                                      "hardswish",
                                      "hardsigmoid",
                                      "exp",
                                      "log",
                                      "sqrt",
                                      "rsqrt",
                                      "square",
                                      "reciprocal",
                                      "sin",
                                      "cos",
                                      "erf",
                                      "neg",
                                      "softmax",
                                      "log_softmax",
                                      "mean",
                                      "sum",
                                      "prelu",
                                      "batch_norm",
                                      "layer_norm",
                                      "group_norm",
                                      "instance_norm",
                                      "avg_pool1d",
                                      "avg_pool2d",
                                      "avg_pool3d",
                                      "adaptive_avg_pool1d",
                                      "adaptive_avg_pool2d",
                                      "adaptive_avg_pool3d",
                                      "adaptive_max_pool1d",
                                      "adaptive_max_pool2d",
                                      "adaptive_max_pool3d",
                                      "upsample_nearest1d",
                                      "upsample_nearest2d",
                                      "upsample_nearest3d",
                                      "upsample_linear1d",
                                      "upsample_bilinear2d",
                                      "upsample_trilinear3d",
                                      "upsample_bicubic2d",
                                      "scaled_dot_product_attention",
                                      "_native_multi_head_attention"};
  return names.count(operation) != 0 || promotes(operation);
}

// It is one of these, whatever the dtype of the input.
bool makes_inexact_dtypes(const std::string& operation) {
  static const OperatorNames names = {"sigmoid", "tanh", "exp",        "log",     "sqrt",        "rsqrt", "sin",
                                      "cos",     "erf",  "reciprocal", "softmax", "log_softmax", "mean"};
  return names.count(operation) != 0;
}

const OperatorNames& splits() {
  static const OperatorNames names = {"chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split", "unbind"};
  return names;
}

// Whether nothing writes into a list, nor takes it where something could.
bool is_only_read(const jit::Value* list) {
  return std::all_of(list->uses().begin(), list->uses().end(), [list](const jit::Use& use) {
    return use.user->kind() == jit::prim::ListUnpack || (use.user->kind().is_aten() && !writes_into(use.user, list));
  });
}

std::optional<size_t> wrapped(int64_t dimension, size_t rank) {
  if (dimension < 0) dimension += static_cast<int64_t>(rank);
  if (dimension < 0 || dimension >= static_cast<int64_t>(rank)) return std::nullopt;
  return static_cast<size_t>(dimension);
}

std::optional<size_t> dimension_of(const jit::Node* node, const char* argument, size_t rank) {
  const auto dimension = has_argument(node, argument) ? constant_int(node->namedInput(argument)) : std::nullopt;
  return dimension ? wrapped(*dimension, rank) : std::nullopt;
}

// A number that is none of those that widen a float, or no number at all.
bool is_real_number(const jit::Value* value) {
  const auto kind = value->type()->kind();
  if (kind == c10::TypeKind::IntType || kind == c10::TypeKind::FloatType) return true;
  return kind == c10::TypeKind::NumberType && constant_number(value).has_value();
}

bool is_none(const jit::Node* node, const char* argument) {
  return !has_argument(node, argument) || node->namedInput(argument)->type()->kind() == c10::TypeKind::NoneType;
}

bool is_inexact(at::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
}

// The dtype of a constant weight of a layer, with which its input is multiplied; nothing where it has none.
std::optional<at::ScalarType> dtype_of_weight(const jit::Node* layer) {
  std::optional<at::Tensor> weight;
  if (is_convolution(layer) || is_one_of(layer, {"linear"})) {
    if (has_argument(layer, "weight")) weight = constant_tensor(layer->namedInput("weight"));
  } else if (is_one_of(layer, {"matmul", "mm", "bmm"})) {
    weight = constant_tensor(layer->input(1));
    if (!weight) weight = constant_tensor(layer->input(0));
  } else if (is_one_of(layer, {"addmm"})) {
    weight = constant_tensor(layer->input(2));
  }
  return weight && is_inexact(weight->scalar_type()) ? std::optional<at::ScalarType>(weight->scalar_type()) : std::nullopt;
}

}  // namespace

void FactsReader::read(const jit::Graph& graph) {
  if (may_resize(graph)) return;
  for (const jit::Value* input : graph.inputs()) {
    const auto* example = facts_.example_of(input);
    if (example != nullptr && is_tensor(input)) assume(input, static_cast<int64_t>(example->size()));
  }
  do {
    learned_ = false;
    has_assumed_ = false;
    facts_.facts_.clear();
    numbers_.clear();
    for (const jit::Value* input : graph.inputs()) facts_.facts_.emplace(input, new_fact(input));
    read(graph.block());
  } while (learned_);
}

void FactsReader::read(const jit::Block* block) {
  for (const jit::Value* input : block->inputs()) facts_.facts_.emplace(input, new_fact(input));
  for (const jit::Node* node : const_cast<jit::Block*>(block)->nodes()) {
    for (const jit::Block* inner : node->blocks()) read(inner);
    if (node->kind() == jit::prim::fork && node->hasAttribute(jit::attr::Subgraph)) read(node->g(jit::attr::Subgraph)->block());
    read(node);
  }
}

void FactsReader::read(const jit::Node* node) {
  learn(node);
  for (const jit::Value* output : node->outputs()) facts_.facts_.insert_or_assign(output, fact_of(node, output));
}

const FactsReader::Fact& FactsReader::known(const jit::Value* value) const {
  static const Fact nothing;
  const Fact* fact = facts_.find(value);
  return fact != nullptr ? *fact : nothing;
}

// `fact` is made of `other`, and right where that is.
void FactsReader::rest_on(const Fact& other, Fact& fact) {
  fact.assumed.insert(other.assumed.begin(), other.assumed.end());
  fact.assumed_for_dtype.insert(other.assumed_for_dtype.begin(), other.assumed_for_dtype.end());
}

FactsReader::Fact FactsReader::fact_of(const jit::Node* node, const jit::Value* output) {
  Fact fact = new_fact(output);
  if (const auto tensor = constant_tensor(output)) {
    fact.sizes = list_of(tensor->sizes());
    fact.dtype = known_dtype(tensor->scalar_type());
    return fact;
  }
  if (node->kind() == jit::prim::If) return fact_of_branches(node, output);
  for (const jit::Value* input : node->inputs()) rest_on(known(input), fact);
  if (output->offset() != 0 && node->kind() != jit::prim::ListUnpack) return fact;
  if (!is_tensor(output)) {
    fact.sizes = computed_list(node);
    return fact;
  }
  const jit::Value* like = same_rank_as(node);
  if (auto shape = shape_of(node, output)) {
    fact.sizes = std::move(shape);
  } else if (like != nullptr && known(like).sizes) {
    fact.sizes = unknown_sizes(output, known(like).sizes->size());
  } else if (like != nullptr && known(like).like != nullptr) {
    fact.like = known(like).like;
  }
  fact.dtype = dtype_of(node, fact);
  return fact;
}

// What holds whichever branch runs.
FactsReader::Fact FactsReader::fact_of_branches(const jit::Node* node, const jit::Value* output) {
  const Fact& one = known(node->blocks()[0]->outputs()[output->offset()]);
  const Fact& other = known(node->blocks()[1]->outputs()[output->offset()]);
  Fact fact = new_fact(output);
  if (is_checked_within(node, one) || is_checked_within(node, other)) return fact;
  if (one.sizes && one.sizes == other.sizes) fact.sizes = one.sizes;
  if (one.dtype == other.dtype) fact.dtype = one.dtype;
  rest_on(one, fact);
  rest_on(other, fact);
  return fact;
}

// Whether the fact rests on the rank of a value in a branch of `node`, of which nothing can be asked behind it.
bool FactsReader::is_checked_within(const jit::Node* node, const Fact& fact) const {
  const auto is_inner = [&](size_t place) {
    const jit::Block* block = facts_.assumptions_[place].value->node()->owningBlock();
    while (block != nullptr && block->owningNode() != nullptr && block->owningNode() != node)
      block = block->owningNode()->owningBlock();
    return block != nullptr && block->owningNode() == node;
  };
  return std::any_of(fact.assumed.begin(), fact.assumed.end(), is_inner) ||
         std::any_of(fact.assumed_for_dtype.begin(), fact.assumed_for_dtype.end(), is_inner);
}

// ---- numbers

std::string FactsReader::name_of(const jit::Value* value) {
  return fmt::format("value {}", numbered_.emplace(value, numbered_.size()).first->second);
}

std::optional<SizeId> FactsReader::number_of(const jit::Value* value) {
  if (const auto constant = constant_int(value)) return sizes_.constant(*constant);
  const auto tensor = constant_tensor(value);
  if (tensor && tensor->dim() == 0 && tensor->scalar_type() == at::kLong) return sizes_.constant(tensor->item<int64_t>());
  const auto found = numbers_.find(value);
  if (found != numbers_.end()) return found->second;
  auto number = computed_number(value->node());
  if (!number && value->node()->kind() == jit::prim::ListUnpack) {
    const auto list = list_of(value->node()->input());
    if (list && value->offset() < list->size()) number = list->at(value->offset());
  }
  if (!number && value->type()->kind() == c10::TypeKind::IntType) number = sizes_.number_that_may_be_negative(name_of(value));
  if (number) numbers_.emplace(value, *number);
  return number;
}

std::optional<SizeId> FactsReader::computed_number(const jit::Node* node) {
  static const OperatorNames casts = {"Int", "IntImplicit", "ScalarImplicit"};
  if (node->kind() == jit::prim::NumToTensor || is_one_of(node, casts)) return number_of(node->input(0));
  if (!node->kind().is_aten() || node->inputs().size() < 2) return std::nullopt;
  if (is_one_of(node, {"size"})) {
    const Shape& sizes = known(node->input(0)).sizes;
    const auto dimension = sizes ? dimension_of(node, "dim", sizes->size()) : std::nullopt;
    return dimension ? std::optional<SizeId>(sizes->at(*dimension)) : std::nullopt;
  }
  if (is_one_of(node, {"__getitem__"})) {
    const auto list = list_of(node->input(0));
    const auto index = constant_int(node->input(1));
    const auto place = list && index ? wrapped(*index, list->size()) : std::nullopt;
    return place ? std::optional<SizeId>(list->at(*place)) : std::nullopt;
  }
  if (!is_one_of(node, {"add", "sub", "mul", "floordiv", "floor_divide"})) return std::nullopt;
  const auto one = number_of(node->input(0));
  const auto other = number_of(node->input(1));
  if (!one || !other || (node->inputs().size() > 2 && constant_number(node->input(2)) != 1.0)) return std::nullopt;
  if (is_one_of(node, {"add"})) return sizes_.sum(*one, *other);
  if (is_one_of(node, {"sub"})) return sizes_.difference(*one, *other);
  if (is_one_of(node, {"mul"})) return sizes_.product(*one, *other);
  const auto divisor = sizes_.number(*other);
  return divisor && *divisor > 0 ? std::optional<SizeId>(sizes_.quotient(*one, *divisor)) : std::nullopt;
}

FactsReader::Shape FactsReader::list_of(at::IntArrayRef numbers) {
  Shape sizes(std::in_place);
  for (const int64_t number : numbers) sizes->push_back(sizes_.constant(number));
  return sizes;
}

FactsReader::Shape FactsReader::list_of(const jit::Value* list) {
  if (const auto numbers = constant_ints(list)) return list_of(at::IntArrayRef(*numbers));
  if (list->type()->kind() != c10::TypeKind::ListType) return std::nullopt;
  return known(list).sizes;
}

// Lists are written too: one that something appends to is none.
FactsReader::Shape FactsReader::computed_list(const jit::Node* node) {
  if (node->outputs().size() != 1 || *node->output()->type() != *c10::ListType::ofInts()) return std::nullopt;
  if (!is_only_read(node->output())) return std::nullopt;
  if (node->kind() == jit::prim::ListConstruct) {
    Shape sizes(std::in_place);
    for (const jit::Value* element : node->inputs()) {
      const auto number = number_of(element);
      if (!number) return std::nullopt;
      sizes->push_back(*number);
    }
    return sizes;
  }
  if (is_one_of(node, {"size"}) && node->inputs().size() == 1) return known(node->input(0)).sizes;
  if (is_one_of(node, {"slice"}) && node->inputs().size() == 4) {
    const auto list = list_of(node->input(0));
    const auto start = constant_int(node->input(1)).value_or(0);
    const bool to_the_end = node->input(2)->type()->kind() == c10::TypeKind::NoneType;
    if (!list || constant_int(node->input(3)) != 1 || (!to_the_end && !constant_int(node->input(2)))) return std::nullopt;
    const auto length = static_cast<int64_t>(list->size());
    const auto bounded = [length](int64_t place) { return std::clamp<int64_t>(place < 0 ? place + length : place, 0, length); };
    const int64_t begin = bounded(start);
    const int64_t end = to_the_end ? length : bounded(*constant_int(node->input(2)));
    if (node->input(1)->type()->kind() != c10::TypeKind::NoneType && !constant_int(node->input(1))) return std::nullopt;
    return begin < end ? Shape(std::in_place, list->begin() + begin, list->begin() + end) : Shape(std::in_place);
  }
  if (is_one_of(node, {"add"})) {
    auto list = list_of(node->input(0));
    const auto more = list_of(node->input(1));
    if (!list || !more) return std::nullopt;
    list->insert(list->end(), more->begin(), more->end());
    return list;
  }
  return std::nullopt;
}

// ---- sizes

FactsReader::Shape FactsReader::unknown_sizes(const jit::Value* value, size_t rank) {
  Shape sizes(std::in_place);
  for (size_t i = 0; i < rank; ++i) sizes->push_back(sizes_.unknown(fmt::format("{} along {}", name_of(value), i)));
  return sizes;
}

FactsReader::Fact FactsReader::new_fact(const jit::Value* value) {
  Fact fact;
  if (!is_tensor(value)) return fact;
  fact.like = value;
  fact.dtype = dtype_of_root(value);
  const auto assumed = assumed_.find(value);
  if (assumed == assumed_.end()) return fact;
  fact.sizes = unknown_sizes(value, facts_.assumptions_[assumed->second].rank);
  for (size_t i = 0; i < fact.sizes->size(); ++i) {
    SizeId& size = fact.sizes->at(i);
    roots_of_sizes_.emplace(size, std::make_pair(value, i));
    const auto number = learned_sizes_.find({value, i});
    if (number != learned_sizes_.end()) size = sizes_.constant(number->second);
  }
  fact.assumed.insert(assumed->second);
  return fact;
}

void FactsReader::assume(const jit::Value* value, int64_t rank) {
  if (!assumed_.emplace(value, facts_.assumptions_.size()).second) return;
  facts_.assumptions_.push_back({const_cast<jit::Value*>(value), rank});
  learned_ = true;
}

const jit::Value* FactsReader::same_rank_as(const jit::Node* node) const {
  const bool same =
      is_step(node) ? false : keeps_sizes(node) || keeps_channels(node) || is_one_of(node, {"pad", "constant_pad_nd"});
  return same ? node->input(0) : nullptr;
}

FactsReader::Shape FactsReader::shape_of(const jit::Node* node, const jit::Value* output) {
  static const OperatorNames same = {"zeros_like", "ones_like", "empty_like", "rand_like",  "randn_like",
                                     "full_like",  "type_as",   "fill",       "copy",       "zero",
                                     "batch_norm", "dropout",   "softmax",    "log_softmax"};
  static const OperatorNames made = {"zeros", "ones", "empty", "full", "rand", "randn"};
  if (node->kind() == jit::prim::ListUnpack) return of_piece(node->input()->node(), output->offset());
  if (node->kind() == jit::prim::NumToTensor) return Shape(std::in_place);
  if (!node->kind().is_aten() || node->inputs().empty() || output->offset() != 0) return std::nullopt;
  const std::string operation = operation_of(node);
  if (is_in_place(node) || is_one_of(node, {"_native_multi_head_attention"})) return known(node->input(0)).sizes;
  if (is_elementwise(operation)) return broadcast(node);
  if (keeps_sizes(node) || same.count(operation) != 0) return known(node->input(0)).sizes;
  if (made.count(operation) != 0) {
    const auto sizes = list_of(node->input(0));
    const bool negative =
        sizes && std::any_of(sizes->begin(), sizes->end(), [this](SizeId size) { return sizes_.may_be_negative(size); });
    return negative ? std::nullopt : sizes;
  }
  if (is_convolution(node)) return of_conv(node);
  if (is_one_of(node, {"linear", "matmul", "mm", "bmm", "addmm", "scaled_dot_product_attention"})) return of_product(node);
  if (is_one_of(node, {"cat", "concat", "stack"})) return of_concatenation(node);
  if (is_one_of(node, {"view", "reshape"})) return of_view(node);
  if (is_one_of(node, {"flatten"})) return of_flatten(node);
  if (is_one_of(node, {"expand_as", "view_as", "reshape_as"})) return known(node->input(1)).sizes;
  if (is_one_of(node, {"expand", "repeat"})) return of_expand(node);
  if (is_one_of(node, {"slice", "narrow", "select"})) return of_slice(node);
  if (is_one_of(node, {"mean", "sum", "amax", "amin", "max", "min", "norm", "linalg_vector_norm"})) return of_reduction(node);
  if (is_one_of(node, {"permute", "transpose", "t", "unsqueeze", "squeeze"})) return rearranged(node);
  if (is_one_of(node, {"pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"})) return of_pad(node);
  if (is_one_of(node, {"embedding"})) {
    auto sizes = known(node->input(1)).sizes;
    const auto& weight = known(node->input(0)).sizes;
    if (!sizes || !weight || weight->size() != 2) return std::nullopt;
    sizes->push_back(weight->at(1));
    return sizes;
  }
  if (is_one_of(node, {"pixel_shuffle"})) {
    auto sizes = known(node->input(0)).sizes;
    const auto factor = constant_int(node->input(1));
    if (!sizes || sizes->size() != 4 || !factor || *factor <= 0) return std::nullopt;
    sizes->at(1) = sizes_.quotient(sizes->at(1), *factor * *factor);
    for (const size_t place : {2, 3}) sizes->at(place) = sizes_.scaled(sizes->at(place), *factor, 0);
    return sizes;
  }
  if (operation.rfind("upsample_", 0) == 0) return of_interpolation(node);
  if (operation.find("_pool") != std::string::npos) return of_pool(node);
  return std::nullopt;
}

FactsReader::Shape FactsReader::broadcast(const jit::Node* node) {
  Shape result(std::in_place);
  for (const jit::Value* input : node->inputs()) {
    if (!is_tensor(input)) continue;
    const Shape& sizes = known(input).sizes;
    if (!sizes) return std::nullopt;
    if (sizes->size() > result->size()) {
      result->insert(result->begin(), sizes->size() - result->size(), sizes_.constant(1));
    }
    const size_t ahead = result->size() - sizes->size();
    for (size_t i = 0; i < sizes->size(); ++i) result->at(ahead + i) = sizes_.broadcast(result->at(ahead + i), sizes->at(i));
  }
  return result;
}

FactsReader::Shape FactsReader::of_conv(const jit::Node* conv) {
  const bool forward = is_forward_conv(conv);
  if (!forward && !is_transposed_conv(conv)) return std::nullopt;
  const auto weight = constant_tensor(conv->namedInput("weight"));
  const Shape& input = known(conv->input(0)).sizes;
  if (!weight || !input) return std::nullopt;
  const auto rank = static_cast<size_t>(weight->dim());
  if (input->size() != rank && input->size() + 1 != rank) return std::nullopt;
  const auto geometry = conv_geometry(conv, *weight);
  if (!geometry) return unknown_sizes(conv->output(), input->size());
  Shape sizes = input;
  const size_t channels = input->size() - rank + 1;
  sizes->at(channels) = sizes_.constant(forward ? weight->size(0) : weight->size(1) * geometry->groups);
  for (size_t i = 0; i < rank - 2; ++i) {
    const int64_t reach = geometry->dilation[i] * (weight->size(static_cast<int64_t>(i) + 2) - 1);
    SizeId& size = sizes->at(channels + 1 + i);
    if (geometry->stride[i] <= 0) return std::nullopt;
    if (forward) {
      size = sizes_.quotient(sizes_.scaled(size, 1, 2 * geometry->padding[i] - reach - 1), geometry->stride[i]);
      size = sizes_.scaled(size, 1, 1);
    } else {
      const int64_t beyond = reach + geometry->output_padding[i] + 1 - 2 * geometry->padding[i] - geometry->stride[i];
      size = sizes_.scaled(size, geometry->stride[i], beyond);
    }
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_pool(const jit::Node* pool) {
  Shape sizes = known(pool->input(0)).sizes;
  if (!keeps_channels(pool) || !sizes) return std::nullopt;
  const auto spatial = static_cast<size_t>(spatial_dimensions(pool));
  if (sizes->size() != spatial + 1 && sizes->size() != spatial + 2) return std::nullopt;
  const size_t first = sizes->size() - spatial;
  const auto numbers_of = [&](const char* argument, int64_t otherwise) {
    auto numbers = has_argument(pool, argument) ? constant_ints(pool->namedInput(argument)) : std::vector<int64_t>{otherwise};
    if (numbers && numbers->size() == 1) numbers->resize(spatial, numbers->front());
    return numbers && numbers->size() == spatial ? numbers : std::nullopt;
  };
  if (operation_of(pool).rfind("adaptive_", 0) == 0) {
    auto list = list_of(pool->input(1));
    if (list && list->size() == 1) list->resize(spatial, list->front());
    if (!list || list->size() != spatial) return std::nullopt;
    for (size_t i = 0; i < spatial; ++i) {
      if (sizes_.may_be_negative(list->at(i))) return std::nullopt;
      sizes->at(first + i) = list->at(i);
    }
    return sizes;
  }
  const auto window = numbers_of("kernel_size", 0);
  auto stride = numbers_of("stride", 0);
  if (!stride && constant_ints(pool->namedInput("stride")) == std::vector<int64_t>{}) stride = window;
  const auto padding = numbers_of("padding", 0);
  const auto dilation = numbers_of("dilation", 1);
  const auto ceil = constant_bool(pool->namedInput("ceil_mode"));
  if (!window || !stride || !padding || !dilation || !ceil) return unknown_sizes(pool->outputs()[0], sizes->size());
  for (size_t i = 0; i < spatial; ++i) {
    if (stride->at(i) <= 0) return std::nullopt;
    SizeId& size = sizes->at(first + i);
    if (*ceil) {
      // The last window may lie in the padding, and is left out then.
      const auto name = fmt::format("ceil pool {} {} {} {}", window->at(i), stride->at(i), padding->at(i), dilation->at(i));
      size = sizes_.unknown(name, {size});
      continue;
    }
    const int64_t reach = dilation->at(i) * (window->at(i) - 1);
    size = sizes_.quotient(sizes_.scaled(size, 1, 2 * padding->at(i) - reach - 1), stride->at(i));
    size = sizes_.scaled(size, 1, 1);
  }
  return sizes;
}

// To given sizes, or by factors.
FactsReader::Shape FactsReader::of_interpolation(const jit::Node* node) {
  Shape sizes = known(node->input(0)).sizes;
  if (!sizes || sizes->size() < 3) return std::nullopt;
  const size_t spatial = sizes->size() - 2;
  if (node->input(1)->type()->kind() != c10::TypeKind::NoneType) {
    const auto list = list_of(node->input(1));
    if (!list || list->size() != spatial) return unknown_sizes(node->output(), sizes->size());
    for (size_t i = 0; i < spatial; ++i) {
      if (sizes_.may_be_negative(list->at(i))) return unknown_sizes(node->output(), sizes->size());
      sizes->at(i + 2) = list->at(i);
    }
    return sizes;
  }
  if (!has_argument(node, "scale_factors")) return unknown_sizes(node->output(), sizes->size());
  const auto factors = jit::toIValue(node->namedInput("scale_factors"));
  if (!factors || !factors->isDoubleList() || factors->toDoubleVector().size() != spatial) {
    return unknown_sizes(node->output(), sizes->size());
  }
  for (size_t i = 0; i < spatial; ++i) {
    const double factor = factors->toDoubleVector()[i];
    const bool whole = factor >= 1 && factor <= 1024 && factor == static_cast<double>(static_cast<int64_t>(factor));
    sizes->at(i + 2) = whole ? sizes_.scaled(sizes->at(i + 2), static_cast<int64_t>(factor), 0)
                             : sizes_.unknown(fmt::format("scaled by {:a}", factor), {sizes->at(i + 2)});
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_product(const jit::Node* node) {
  const size_t first = is_one_of(node, {"addmm"}) ? 1 : 0;
  Shape one = known(node->input(first)).sizes;
  const Shape& other = known(node->input(first + 1)).sizes;
  if (!one || !other) return std::nullopt;
  if (is_one_of(node, {"linear"})) {
    if (one->empty() || other->size() != 2) return std::nullopt;
    one->back() = other->at(0);
    return one;
  }
  if (is_one_of(node, {"scaled_dot_product_attention"})) {
    const Shape& value = known(node->input(2)).sizes;
    if (!value || one->size() != other->size() || value->size() != one->size() || one->size() < 2) return std::nullopt;
    for (size_t i = 0; i + 2 < one->size(); ++i) {
      if (one->at(i) != other->at(i) || one->at(i) != value->at(i)) return std::nullopt;
    }
    one->back() = value->back();
    return one;
  }
  if (one->size() < 2 || other->size() < 2) return std::nullopt;
  Shape longer = one->size() >= other->size() ? one : other;
  const Shape& shorter = one->size() >= other->size() ? other : one;
  const size_t ahead = longer->size() - shorter->size();
  for (size_t i = 0; i + 2 < shorter->size(); ++i) {
    longer->at(ahead + i) = sizes_.broadcast(longer->at(ahead + i), shorter->at(i));
  }
  longer->at(longer->size() - 2) = one->at(one->size() - 2);
  longer->back() = other->back();
  return longer;
}

FactsReader::Shape FactsReader::of_concatenation(const jit::Node* node) {
  const jit::Node* list = node->input(0)->node();
  if (list->kind() != jit::prim::ListConstruct || list->inputs().empty() || !is_only_read(list->output())) return std::nullopt;
  Shape sizes = known(list->input(0)).sizes;
  const bool stacks = is_one_of(node, {"stack"});
  const auto joined = sizes ? dimension_of(node, "dim", sizes->size() + (stacks ? 1 : 0)) : std::nullopt;
  // An empty vector is left out of what else is joined.
  if (!joined || (sizes->size() < 2 && !stacks)) return std::nullopt;
  for (const jit::Value* part : list->inputs().slice(1)) {
    const Shape& more = known(part).sizes;
    if (!more || more->size() != sizes->size()) return std::nullopt;
    for (size_t i = 0; i < sizes->size(); ++i) {
      if (i == *joined && !stacks) {
        sizes->at(i) = sizes_.sum(sizes->at(i), more->at(i));
      } else if (sizes_.number(more->at(i))) {
        sizes->at(i) = more->at(i);
      }
    }
  }
  if (stacks) sizes->insert(sizes->begin() + *joined, sizes_.constant(static_cast<int64_t>(list->inputs().size())));
  return sizes;
}

FactsReader::Shape FactsReader::of_view(const jit::Node* node) {
  auto sizes = list_of(node->input(1));
  if (!sizes || node->input(1)->type()->kind() != c10::TypeKind::ListType) return std::nullopt;
  std::optional<size_t> open;
  std::vector<SizeId> others;
  for (size_t i = 0; i < sizes->size(); ++i) {
    if (sizes_.number(sizes->at(i)) == -1 && !open) {
      open = i;
    } else if (sizes_.may_be_negative(sizes->at(i))) {
      return unknown_sizes(node->output(), sizes->size());
    } else {
      others.push_back(sizes->at(i));
    }
  }
  const Shape& input = known(node->input(0)).sizes;
  if (open) {
    sizes->at(*open) = input ? sizes_.exact_quotient(*input, others)
                             : sizes_.unknown(fmt::format("{} along {}", name_of(node->output()), *open));
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_flatten(const jit::Node* node) {
  Shape sizes = known(node->input(0)).sizes;
  if (!sizes || sizes->empty()) return std::nullopt;
  const auto first = dimension_of(node, "start_dim", sizes->size());
  const auto last = dimension_of(node, "end_dim", sizes->size());
  if (!first || !last || *first > *last) return std::nullopt;
  for (size_t i = *first; i < *last; ++i) {
    sizes->at(*first) = sizes_.product(sizes->at(*first), sizes->at(*first + 1));
    sizes->erase(sizes->begin() + *first + 1);
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_expand(const jit::Node* node) {
  const Shape& input = known(node->input(0)).sizes;
  auto sizes = list_of(node->input(1));
  if (!input || !sizes || sizes->size() < input->size()) return std::nullopt;
  const size_t ahead = sizes->size() - input->size();
  for (size_t i = 0; i < sizes->size(); ++i) {
    const bool kept = sizes_.number(sizes->at(i)) == -1 && i >= ahead && !is_one_of(node, {"repeat"});
    if (!kept && sizes_.may_be_negative(sizes->at(i))) return unknown_sizes(node->output(), sizes->size());
    if (kept) sizes->at(i) = input->at(i - ahead);
    if (is_one_of(node, {"repeat"}) && i >= ahead) sizes->at(i) = sizes_.product(sizes->at(i), input->at(i - ahead));
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_slice(const jit::Node* node) {
  Shape sizes = known(node->input(0)).sizes;
  const auto cut = sizes ? dimension_of(node, "dim", sizes->size()) : std::nullopt;
  if (!cut) return std::nullopt;
  SizeId& size = sizes->at(*cut);
  if (is_one_of(node, {"select"})) {
    sizes->erase(sizes->begin() + *cut);
    return sizes;
  }
  const auto unknown = [&] { return sizes_.unknown(fmt::format("{} along {}", name_of(node->output()), *cut)); };
  if (is_one_of(node, {"narrow"})) {
    const auto length = number_of(node->input(3));
    size = length && !sizes_.may_be_negative(*length) ? *length : unknown();
    return sizes;
  }
  const auto end_or_start = [&](const char* name, int64_t otherwise) {
    const jit::Value* value = node->namedInput(name);
    return value->type()->kind() == c10::TypeKind::NoneType ? std::optional<int64_t>(otherwise) : constant_int(value);
  };
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  const auto start = end_or_start("start", 0);
  const auto end = end_or_start("end", kEnd);
  const auto step = constant_int(node->namedInput("step"));
  if (!start || !end || !step || *step <= 0) {
    size = unknown();
    return sizes;
  }
  if (const auto whole = sizes_.number(size)) {
    const auto bounded = [&](int64_t place) { return std::clamp<int64_t>(place < 0 ? place + *whole : place, 0, *whole); };
    size = sizes_.constant((std::max<int64_t>(bounded(*end) - bounded(*start), 0) + *step - 1) / *step);
  } else if (*start == 0 && *end == kEnd) {
    size = sizes_.quotient(sizes_.scaled(size, 1, *step - 1), *step);
  } else {
    size = sizes_.unknown(fmt::format("slice {} {} {}", *start, *end, *step), {size});
  }
  return sizes;
}

FactsReader::Shape FactsReader::of_reduction(const jit::Node* node) {
  if (is_one_of(node, {"mean", "sum"}) && !has_argument(node, "dim")) return Shape(std::in_place);
  Shape sizes = known(node->input(0)).sizes;
  if (!has_argument(node, "dim") || !has_argument(node, "keepdim") || !sizes) return std::nullopt;
  const auto dimensions = constant_ints(node->namedInput("dim"));
  const auto keeps = constant_bool(node->namedInput("keepdim"));
  if (!dimensions || dimensions->empty() || !keeps) return std::nullopt;
  std::vector<bool> reduced(sizes->size());
  for (const int64_t dimension : *dimensions) {
    const auto place = wrapped(dimension, sizes->size());
    if (!place) return std::nullopt;
    reduced[*place] = true;
  }
  Shape result(std::in_place);
  for (size_t i = 0; i < sizes->size(); ++i) {
    if (!reduced[i]) result->push_back(sizes->at(i));
    if (reduced[i] && *keeps) result->push_back(sizes_.constant(1));
  }
  return result;
}

FactsReader::Shape FactsReader::of_pad(const jit::Node* node) {
  Shape sizes = known(node->input(0)).sizes;
  const auto amounts = constant_ints(node->input(1));  // left, right, top, bottom, and so on
  if (!sizes || !amounts || amounts->size() > 2 * sizes->size()) return std::nullopt;
  for (size_t i = 0; i + 1 < amounts->size(); i += 2) {
    SizeId& size = sizes->at(sizes->size() - 1 - i / 2);
    size = sizes_.scaled(size, 1, amounts->at(i) + amounts->at(i + 1));
  }
  return sizes;
}

// An element of the list that chunk, split or unbind return.
FactsReader::Shape FactsReader::of_piece(const jit::Node* split, size_t place) {
  if (!is_one_of(split, splits())) return std::nullopt;
  Shape sizes = known(split->input(0)).sizes;
  const auto cut = sizes ? dimension_of(split, "dim", sizes->size()) : std::nullopt;
  if (!cut) return std::nullopt;
  if (is_one_of(split, {"unbind"})) {
    sizes->erase(sizes->begin() + *cut);
    return sizes;
  }
  SizeId& size = sizes->at(*cut);
  const auto whole = sizes_.number(size);
  const auto numbers = constant_ints(split->input(1));
  const bool listed = split->input(1)->type()->kind() == c10::TypeKind::ListType;
  if (listed && numbers && place < numbers->size()) {
    size = sizes_.constant(numbers->at(place));
  } else if (whole && !listed && numbers && numbers->front() > 0) {
    const bool chunks = operation_of(split).find("chunk") != std::string::npos;
    const int64_t length = chunks ? (*whole + numbers->front() - 1) / numbers->front() : numbers->front();
    size = sizes_.constant(std::clamp<int64_t>(*whole - length * static_cast<int64_t>(place), 0, length));
  } else {
    size = sizes_.unknown(fmt::format("{} piece {}", name_of(split->output()), place));
  }
  return sizes;
}

FactsReader::Shape FactsReader::rearranged(const jit::Node* node) {
  Shape sizes = known(node->input(0)).sizes;
  if (!sizes) return std::nullopt;
  const size_t rank = sizes->size();
  if (is_one_of(node, {"permute"})) {
    const auto order = constant_ints(node->input(1));
    if (!order || order->size() != rank) return std::nullopt;
    const Shape before = sizes;
    for (size_t i = 0; i < rank; ++i) {
      const auto place = wrapped(order->at(i), rank);
      if (!place) return std::nullopt;
      sizes->at(i) = before->at(*place);
    }
    return sizes;
  }
  if (is_one_of(node, {"t"})) {
    if (rank == 2) std::swap(sizes->at(0), sizes->at(1));
    return sizes;
  }
  if (is_one_of(node, {"transpose"})) {
    const auto one = dimension_of(node, "dim0", rank);
    const auto other = dimension_of(node, "dim1", rank);
    if (!one || !other) return std::nullopt;
    std::swap(sizes->at(*one), sizes->at(*other));
    return sizes;
  }
  const bool more = is_one_of(node, {"unsqueeze"});
  const auto place = dimension_of(node, "dim", rank + (more ? 1 : 0));
  if (!place) return std::nullopt;
  if (more) {
    sizes->insert(sizes->begin() + *place, sizes_.constant(1));
    return sizes;
  }
  const auto size = sizes_.number(sizes->at(*place));
  if (!size) return std::nullopt;
  if (*size == 1) sizes->erase(sizes->begin() + *place);
  return sizes;
}

// ---- dtypes

FactsReader::Dtype FactsReader::known_dtype(at::ScalarType dtype) {
  const auto [found, is_new] = known_dtypes_.emplace(dtype, static_cast<int>(roots_.size()));
  if (is_new) roots_.push_back(nullptr);
  return {found->second, is_inexact(dtype)};
}

FactsReader::Dtype FactsReader::dtype_of_root(const jit::Value* root) {
  const auto learned = learned_dtypes_.find(root);
  if (learned != learned_dtypes_.end()) return known_dtype(learned->second);
  const auto [found, is_new] = root_dtypes_.emplace(root, static_cast<int>(roots_.size()));
  if (is_new) roots_.push_back(root);
  return {found->second, learned_inexact_.count(root) != 0};
}

FactsReader::Dtype FactsReader::dtype_of(const jit::Node* node, Fact& fact) {
  if (const auto dtype = dtype_of_weight(node)) return known_dtype(*dtype);
  if (node->kind() == jit::prim::ListUnpack && is_one_of(node->input()->node(), splits())) {
    return known(node->input()->node()->input(0)).dtype;
  }
  if (!node->kind().is_aten() || node->inputs().empty()) return fact.dtype;
  if (is_in_place(node)) return known(node->input(0)).dtype;
  if (is_one_of(node, {"cat", "concat", "stack"})) return dtype_of_list(node->input(0), fact.dtype);
  if (is_one_of(node, {"matmul", "mm", "bmm"})) return dtype_of_product(node);
  if (is_one_of(node, {"to", "type_as"})) return dtype_of_cast(node, fact.dtype);
  if (!is_none(node, "dtype")) return fact.dtype;
  const std::string operation = operation_of(node);
  if (keeps_every_dtype(operation)) return known(node->input(0)).dtype;
  const auto operands = keeps_inexact_dtypes(operation) ? dtype_of_operands(node, fact) : std::nullopt;
  return operands ? *operands : Dtype{fact.dtype.number, fact.dtype.inexact || makes_inexact_dtypes(operation)};
}

FactsReader::Dtype FactsReader::dtype_of_list(const jit::Value* list, Dtype otherwise) const {
  if (list->node()->kind() != jit::prim::ListConstruct || list->node()->inputs().empty()) return otherwise;
  const auto parts = list->node()->inputs();
  const Dtype first = known(parts[0]).dtype;
  const bool alike = std::all_of(parts.begin(), parts.end(), [&](const jit::Value* part) { return known(part).dtype == first; });
  return alike ? first : otherwise;
}

// Both factors have one, or it raises.
FactsReader::Dtype FactsReader::dtype_of_product(const jit::Node* node) const {
  const Dtype other = known(node->input(1)).dtype;
  const bool is_known = other.number >= 0 && roots_[other.number] == nullptr;
  return is_known ? other : known(node->input(0)).dtype;
}

FactsReader::Dtype FactsReader::dtype_of_cast(const jit::Node* node, Dtype otherwise) {
  if (is_one_of(node, {"type_as"}) || has_argument(node, "other")) return known(node->input(1)).dtype;
  const auto dtype = has_argument(node, "dtype") ? constant_int(node->namedInput("dtype")) : std::nullopt;
  return dtype ? known_dtype(static_cast<at::ScalarType>(*dtype)) : otherwise;
}

// That of all operands which are tensors, where it is one and inexact. Numbers don't change it, nor does a tensor without dimensions beside one
// that has some.
std::optional<FactsReader::Dtype> FactsReader::dtype_of_operands(const jit::Node* node, Fact& fact) const {
  const std::string operation = operation_of(node);
  const bool first_alone = !promotes(operation);
  std::optional<Dtype> common;
  for (size_t i = operation == "where" ? 1 : 0; i < (first_alone ? 1 : node->inputs().size()); ++i) {
    const jit::Value* input = node->input(i);
    const auto tensor = constant_tensor(input);
    if (tensor && tensor->dim() == 0 && !tensor->is_complex() && fact.sizes && !fact.sizes->empty()) {
      fact.assumed_for_dtype.insert(fact.assumed.begin(), fact.assumed.end());
      continue;
    }
    if (!is_tensor(input)) {
      if (!is_real_number(input) && input->type()->kind() != c10::TypeKind::NoneType) return std::nullopt;
      continue;
    }
    if (common && !(known(input).dtype == *common)) return std::nullopt;
    common = known(input).dtype;
  }
  return common && common->inexact ? common : std::nullopt;
}

// What runs whenever `value` is made proves its dtype, where it takes no other.
void FactsReader::learn_dtype(const jit::Node* reader, const jit::Value* value, std::optional<at::ScalarType> dtype) {
  const int number = known(value).dtype.number;
  const jit::Value* root = number >= 0 ? roots_[number] : nullptr;
  if (root == nullptr || root->node()->owningBlock() != reader->owningBlock()) return;
  if (dtype) learned_ |= learned_dtypes_.emplace(root, *dtype).second;
  if (!dtype) learned_ |= learned_inexact_.insert(root).second;
}

// What runs whenever `value` is made, and raises where it has another size there.
void FactsReader::learn_size(const jit::Node* reader, const jit::Value* value, size_t dimension, int64_t number) {
  const Shape& sizes = known(value).sizes;
  const auto found = sizes && dimension < sizes->size() ? roots_of_sizes_.find(sizes->at(dimension)) : roots_of_sizes_.end();
  if (found == roots_of_sizes_.end() || found->second.first->node()->owningBlock() != reader->owningBlock()) return;
  learned_ |= learned_sizes_.emplace(found->second, number).second;
}

void FactsReader::learn_channels(const jit::Node* layer) {
  const auto weight = has_argument(layer, "weight") ? constant_tensor(layer->namedInput("weight")) : std::nullopt;
  const Shape& sizes = known(layer->input(0)).sizes;
  if (!weight || !sizes) return;
  if (is_one_of(layer, {"linear"}) && weight->dim() == 2 && !sizes->empty()) {
    return learn_size(layer, layer->input(0), sizes->size() - 1, weight->size(1));
  }
  const auto groups = has_argument(layer, "groups") ? constant_int(layer->namedInput("groups")) : std::nullopt;
  if (!groups || static_cast<int64_t>(sizes->size()) != weight->dim()) return;
  if (is_forward_conv(layer)) learn_size(layer, layer->input(0), 1, weight->size(1) * *groups);
  if (is_transposed_conv(layer)) learn_size(layer, layer->input(0), 1, weight->size(0));
}

void FactsReader::learn(const jit::Node* node) {
  if (const auto dtype = dtype_of_weight(node)) {
    for (const jit::Value* input : node->inputs()) {
      if (is_tensor(input)) learn_dtype(node, input, dtype);
    }
  } else if (is_one_of(node, {"softmax", "log_softmax", "mean"}) && is_none(node, "dtype")) {
    learn_dtype(node, node->input(0), std::nullopt);
  }
  if (is_convolution(node) || is_one_of(node, {"linear"})) learn_channels(node);
  if (!is_forward_conv(node) && !is_transposed_conv(node)) return;
  const auto weight = constant_tensor(node->namedInput("weight"));
  const Fact& input = known(node->input(0));
  if (!weight || input.sizes || input.like == nullptr || has_assumed_) return;
  const auto* example = facts_.example_of(node->input(0));
  assume(input.like, example != nullptr ? static_cast<int64_t>(example->size()) : weight->dim());
  has_assumed_ = true;
}

}  // namespace bnfold
