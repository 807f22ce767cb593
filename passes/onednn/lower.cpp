#include "onednn/lower.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <unordered_map>

namespace bnfold::onednn {

namespace {

// Where a call has no primitive.
struct NotLowered : std::exception {};

void require(bool condition) {
  if (!condition) throw NotLowered();
}

class Lowering {
 public:
  Lowering(const Steps& steps, const std::vector<Input>& inputs) : steps_(steps) {
    for (const Input& input : inputs) values_.push_back(description.input(input.sizes, input.order));
  }

  void run();

  Description description;

 private:
  using Handler = Value (Lowering::*)(const Call&);
  static const std::unordered_map<std::string, Handler>& handlers();
  friend bool bnfold::onednn::can_be_lowered(const torch::jit::Node* node);

  Value convolution(const Call& call);
  Value relu(const Call& call) { return apply(call, Function::relu); }
  Value relu6(const Call& call) { return apply(call, Function::clip, 0, 6); }
  Value silu(const Call& call) { return apply(call, Function::swish); }
  Value sigmoid(const Call& call) { return apply(call, Function::logistic); }
  Value tanh(const Call& call) { return apply(call, Function::tanh); }
  Value hardswish(const Call& call) { return apply(call, Function::hardswish); }
  Value hardsigmoid(const Call& call) { return apply(call, Function::hardsigmoid); }
  Value leaky_relu(const Call& call) { return apply(call, Function::relu, number(call, "negative_slope")); }
  Value hardtanh(const Call& call) { return clip(call, number(call, "min_val"), number(call, "max_val")); }
  Value clamp(const Call& call);
  Value gelu(const Call& call);
  Value add(const Call& call);
  Value multiply(const Call& call) { return combine(Combination::multiply, call); }
  Value maximum(const Call& call) { return combine(Combination::maximum, call); }
  Value minimum(const Call& call) { return combine(Combination::minimum, call); }
  Value clamp_to_tensors(const Call& call);
  Value max_pool(const Call& call) { return pool(Pooling::maximum, call); }
  Value average_pool(const Call& call);
  Value adaptive_average_pool(const Call& call);
  Value mean(const Call& call);
  Value concatenation(const Call& call);
  Value flatten(const Call& call);
  Value dropout(const Call& call);

  // -- arguments
  const c10::IValue& constant(const Call& call, const char* name) const {
    const auto* found = std::get_if<c10::IValue>(&call.named(name));
    require(found != nullptr);
    return *found;
  }
  double number(const Call& call, const char* name) const { return constant(call, name).toScalar().toDouble(); }
  int64_t integer(const Call& call, const char* name) const { return constant(call, name).toInt(); }
  bool flag(const Call& call, const char* name) const { return constant(call, name).toBool(); }

  // One for each of `count` dimensions.
  Sizes integers(const Call& call, const char* name, size_t count) const {
    const c10::IValue& value = constant(call, name);
    Sizes list = value.isInt() ? Sizes{value.toInt()} : value.toIntVector();
    if (list.size() == 1) list.resize(count, list[0]);
    require(list.size() == count);
    return list;
  }

  Value value(const CallArgument& argument) const {
    const auto* found = std::get_if<ValueAt>(&argument);
    require(found != nullptr);
    return values_.at(found->number);
  }

  // Null for None.
  WeightPtr weight(const Call& call, const char* name) const {
    const CallArgument& argument = call.named(name);
    if (const auto* found = std::get_if<WeightAt>(&argument)) return steps_.weights.at(found->number);
    const auto* none = std::get_if<c10::IValue>(&argument);
    require(none != nullptr && none->isNone());
    return nullptr;
  }

  const Sizes& sizes(Value value) const { return description.sizes_of(value); }
  size_t spatial(Value value) const { return sizes(value).size() - 2; }
  bool is_image(Value value) const { return sizes(value).size() == 4 || sizes(value).size() == 5; }

  Value first(const Call& call) const { return value(call.arguments.at(0)); }

  Value apply(const Call& call, Function function, double alpha = 0, double beta = 0) {
    return description.apply({function, static_cast<float>(alpha), static_cast<float>(beta)}, first(call));
  }
  Value clip(const Call& call, double lowest, double highest) {
    require(lowest <= highest);
    return apply(call, Function::clip, lowest, highest);
  }
  // Whether `part` has the sizes of `whole`, or 1.
  bool spans(Value whole, Value part) const {
    return sizes(whole).size() == sizes(part).size() &&
           std::equal(sizes(part).begin(), sizes(part).end(), sizes(whole).begin(),
                      [](int64_t one, int64_t all) { return one == 1 || one == all; });
  }
  Value combine(Combination combination, const Call& call) {
    return combine(combination, call.arguments.at(0), call.arguments.at(1));
  }
  Value combine(Combination combination, const CallArgument& one, const CallArgument& other);
  Value operand(const CallArgument& argument, size_t rank);
  Value pool(Pooling pooling, Value input, const Window& window);
  Value pool(Pooling pooling, const Call& call);
  Value whole_average(Value input, const Sizes& result);

  const Steps& steps_;
  std::vector<Value> values_;
};

bool is_positive(const Sizes& sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size > 0; });
}

void Lowering::run() {
  for (const Value input : values_) require(is_positive(sizes(input)));
  for (const Call& call : steps_.calls) {
    const auto handler = handlers().find(call.op.schema().name() + "." + call.op.schema().overload_name());
    require(handler != handlers().end());
    values_.push_back((this->*handler->second)(call));
    require(is_positive(sizes(values_.back())));
  }
  for (const size_t output : steps_.outputs) description.output(values_.at(output));
}

Value Lowering::convolution(const Call& call) {
  if (call.has("transposed")) require(!flag(call, "transposed"));
  const Value input = value(call.named("input"));
  const WeightPtr kernel = weight(call, "weight");
  const WeightPtr bias = weight(call, "bias");
  require(kernel != nullptr && is_image(input) && sizes_of(*kernel).size() == sizes(input).size());
  const Sizes& weight_sizes = sizes_of(*kernel);
  const size_t count = spatial(input);
  const int64_t groups = integer(call, "groups");
  require(groups > 0 && weight_sizes[0] % groups == 0 && weight_sizes[1] * groups == sizes(input)[1] &&
          has_kernel(weight_sizes, groups));
  require(bias == nullptr || sizes_of(*bias) == Sizes{weight_sizes[0]});
  const Sizes padding = integers(call, "padding", count);
  const Window window{Sizes(weight_sizes.begin() + 2, weight_sizes.end()), integers(call, "stride", count),
                      integers(call, "dilation", count), padding};
  require(is_positive(window.stride) && is_positive(window.dilation));
  require(std::all_of(padding.begin(), padding.end(), [](int64_t one) { return one >= 0; }));
  for (size_t i = 0; i < count; ++i) {
    require(sizes(input)[i + 2] + 2 * padding[i] >= window.dilation[i] * (window.kernel[i] - 1) + 1);
  }
  return description.convolve(input, kernel, bias, window, groups);
}

namespace {

// Whether a bound is given: clamp_min has no max, and clamp may have none.
bool is_bounded(const Call& call, const char* bound) {
  if (!call.has(bound)) return false;
  const auto* constant = std::get_if<c10::IValue>(&call.named(bound));
  return constant == nullptr || !constant->isNone();
}

}  // namespace

Value Lowering::clamp(const Call& call) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return clip(call, is_bounded(call, "min") ? number(call, "min") : -kInfinity,
              is_bounded(call, "max") ? number(call, "max") : kInfinity);
}

Value Lowering::gelu(const Call& call) {
  const std::string& algorithm = constant(call, "approximate").toStringRef();
  require(algorithm == "none" || algorithm == "tanh");
  return apply(call, algorithm == "none" ? Function::gelu_erf : Function::gelu_tanh);
}

Value Lowering::add(const Call& call) {
  require(number(call, "alpha") == 1);
  return combine(Combination::add, call);
}

// A value; or a constant, with dimensions of size 1 before its own.
Value Lowering::operand(const CallArgument& argument, size_t rank) {
  const auto* number = std::get_if<WeightAt>(&argument);
  if (number == nullptr) return value(argument);
  const WeightPtr& weight = steps_.weights.at(number->number);
  require(sizes_of(*weight).size() <= rank);
  return description.constant(weight, rank);
}

Value Lowering::combine(Combination combination, const CallArgument& one, const CallArgument& other) {
  const auto rank = [this](const CallArgument& argument) {
    return std::holds_alternative<ValueAt>(argument) ? sizes(value(argument)).size() : 0;
  };
  const size_t ranks = std::max(rank(one), rank(other));
  Value larger = operand(one, ranks);
  Value smaller = operand(other, ranks);
  if (!spans(larger, smaller) || description.constant_of(larger) != nullptr) std::swap(larger, smaller);
  require(spans(larger, smaller) && description.constant_of(larger) == nullptr);
  return description.combine(combination, larger, smaller);
}

Value Lowering::clamp_to_tensors(const Call& call) {
  Value value = first(call);
  for (const auto& [name, combination] : {std::pair("min", Combination::maximum), std::pair("max", Combination::minimum)}) {
    if (!is_bounded(call, name)) continue;
    const Value bound = operand(call.named(name), sizes(value).size());
    require(spans(value, bound));
    value = description.combine(combination, value, bound);
  }
  return value;
}

Value Lowering::pool(Pooling pooling, Value input, const Window& window) {
  for (size_t i = 0; i < window.kernel.size(); ++i) {
    require(window.kernel[i] > 0 && window.stride[i] > 0 && window.padding[i] >= 0 && 2 * window.padding[i] <= window.kernel[i]);
    require(sizes(input)[i + 2] + 2 * window.padding[i] >= window.kernel[i]);
  }
  return description.pool(pooling, input, window);
}

Value Lowering::pool(Pooling pooling, const Call& call) {
  const Value input = first(call);
  require(is_image(input) && !flag(call, "ceil_mode"));
  const size_t count = spatial(input);
  if (call.has("dilation")) require(integers(call, "dilation", count) == Sizes(count, 1));
  const Sizes kernel = integers(call, "kernel_size", count);
  const Sizes stride = constant(call, "stride").toIntVector().empty() ? kernel : integers(call, "stride", count);
  return pool(pooling, input, {kernel, stride, Sizes(count, 1), integers(call, "padding", count)});
}

Value Lowering::average_pool(const Call& call) {
  require(constant(call, "divisor_override").isNone());
  return pool(flag(call, "count_include_pad") ? Pooling::average_with_padding : Pooling::average, call);
}

Value Lowering::whole_average(Value input, const Sizes& result) {
  const size_t count = result.size();
  Sizes kernel(count);
  for (size_t i = 0; i < count; ++i) {
    require(result[i] > 0 && sizes(input)[i + 2] % result[i] == 0);
    kernel[i] = sizes(input)[i + 2] / result[i];
  }
  return pool(Pooling::average, input, {kernel, kernel, Sizes(count, 1), Sizes(count, 0)});
}

Value Lowering::adaptive_average_pool(const Call& call) {
  const Value input = first(call);
  require(is_image(input));
  return whole_average(input, integers(call, "output_size", spatial(input)));
}

Value Lowering::mean(const Call& call) {
  const Value input = first(call);
  require(is_image(input) && constant(call, "dtype").isNone() && constant(call, "dim").isIntList());
  Sizes dims = constant(call, "dim").toIntVector();
  for (int64_t& dim : dims) dim += dim < 0 ? static_cast<int64_t>(sizes(input).size()) : 0;
  std::sort(dims.begin(), dims.end());
  require(dims == (spatial(input) == 2 ? Sizes{2, 3} : Sizes{2, 3, 4}));
  const Value average = whole_average(input, Sizes(spatial(input), 1));
  return flag(call, "keepdim") ? average : description.reshape(average, {sizes(input)[0], sizes(input)[1]});
}

Value Lowering::concatenation(const Call& call) {
  const auto* list = std::get_if<ListOfValues>(&call.named("tensors"));
  require(list != nullptr && !list->numbers.empty());
  std::vector<Value> parts;
  parts.reserve(list->numbers.size());
  for (const size_t number : list->numbers) parts.push_back(values_.at(number));
  const Sizes& pattern = sizes(parts[0]);
  const int64_t dim = integer(call, "dim");
  const auto rank = static_cast<int64_t>(pattern.size());
  require(dim >= -rank && dim < rank);
  const int64_t along = dim < 0 ? dim + rank : dim;
  for (const Value part : parts) {
    Sizes other = sizes(part);
    require(other.size() == pattern.size());
    other[along] = pattern[along];
    require(other == pattern);
  }
  return parts.size() == 1 ? parts[0] : description.concatenate(parts, static_cast<int>(along));
}

Value Lowering::flatten(const Call& call) {
  const Value input = first(call);
  const auto rank = static_cast<int64_t>(sizes(input).size());
  const auto place = [rank](int64_t dim) { return dim < 0 ? dim + rank : dim; };
  const int64_t start = place(integer(call, "start_dim"));
  const int64_t end = place(integer(call, "end_dim"));
  require(start >= 0 && start <= end && end < rank);
  const Sizes& old = sizes(input);
  Sizes result(old.begin(), old.begin() + start);
  result.push_back(c10::multiply_integers(old.begin() + start, old.begin() + end + 1));
  result.insert(result.end(), old.begin() + end + 1, old.end());
  return description.reshape(input, result);
}

Value Lowering::dropout(const Call& call) {
  require(!flag(call, "train"));
  return first(call);
}

const std::unordered_map<std::string, Lowering::Handler>& Lowering::handlers() {
  static const std::unordered_map<std::string, Handler> table = {
      {"aten::conv2d.", &Lowering::convolution},
      {"aten::conv3d.", &Lowering::convolution},
      {"aten::_convolution.", &Lowering::convolution},
      {"aten::convolution.", &Lowering::convolution},
      {"aten::relu.", &Lowering::relu},
      {"aten::relu6.", &Lowering::relu6},
      {"aten::silu.", &Lowering::silu},
      {"aten::sigmoid.", &Lowering::sigmoid},
      {"aten::tanh.", &Lowering::tanh},
      {"aten::hardswish.", &Lowering::hardswish},
      {"aten::hardsigmoid.", &Lowering::hardsigmoid},
      {"aten::leaky_relu.", &Lowering::leaky_relu},
      {"aten::hardtanh.", &Lowering::hardtanh},
      {"aten::clamp.", &Lowering::clamp},
      {"aten::clamp.Tensor", &Lowering::clamp_to_tensors},
      {"aten::clamp_min.", &Lowering::clamp},
      {"aten::clamp_max.", &Lowering::clamp},
      {"aten::clamp_min.Tensor", &Lowering::clamp_to_tensors},
      {"aten::clamp_max.Tensor", &Lowering::clamp_to_tensors},
      {"aten::gelu.", &Lowering::gelu},
      {"aten::add.Tensor", &Lowering::add},
      {"aten::mul.Tensor", &Lowering::multiply},
      {"aten::maximum.", &Lowering::maximum},
      {"aten::minimum.", &Lowering::minimum},
      {"aten::max_pool2d.", &Lowering::max_pool},
      {"aten::max_pool3d.", &Lowering::max_pool},
      {"aten::avg_pool2d.", &Lowering::average_pool},
      {"aten::avg_pool3d.", &Lowering::average_pool},
      {"aten::adaptive_avg_pool2d.", &Lowering::adaptive_average_pool},
      {"aten::adaptive_avg_pool3d.", &Lowering::adaptive_average_pool},
      {"aten::mean.dim", &Lowering::mean},
      {"aten::cat.", &Lowering::concatenation},
      {"aten::flatten.using_ints", &Lowering::flatten},
      {"aten::dropout.", &Lowering::dropout},
  };
  return table;
}

}  // namespace

std::optional<Description> lower(const Steps& steps, const std::vector<Input>& inputs) {
  try {
    Lowering lowering(steps, inputs);
    lowering.run();
    return std::move(lowering.description);
  } catch (const NotLowered&) {
    return std::nullopt;
  }
}

bool has_kernel(const Sizes& weight, int64_t groups) {
  constexpr int64_t kBlock = 8;  // of channels that a kernel computes at once
  const bool is_depthwise = weight[1] == 1 && weight[0] == groups;
  return groups == 1 || is_depthwise || (weight[1] % kBlock == 0 && weight[0] / groups % kBlock == 0);
}

bool can_be_lowered(const torch::jit::Node* node) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  return schema != nullptr && Lowering::handlers().count(schema->name() + "." + schema->overload_name()) != 0;
}

}  // namespace bnfold::onednn
