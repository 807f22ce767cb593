#include "onednn/steps.h"

#include <ATen/ATen.h>
#include <ATen/core/stack.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace bnfold::onednn {

using nlohmann::json;

const CallArgument& Call::named(const char* name) const {
  const auto index = op.schema().argumentIndexWithName(name);
  TORCH_CHECK(index, op.schema().name(), " has no argument ", name);
  return arguments.at(*index);
}

at::Tensor tensor_of(const Weight& weight) {
  at::Tensor tensor = at::empty(sizes_of(weight), at::kFloat);
  read_weight(weight, tensor.data_ptr<float>());
  return tensor;
}

WeightPtr weight_of(const at::Tensor& tensor) {
  const at::Tensor numbers = tensor.contiguous();
  return make_weight(numbers.sizes().vec(), numbers.data_ptr<float>());
}

namespace {

std::vector<at::Tensor> chosen(const std::vector<at::Tensor>& values, const std::vector<size_t>& numbers) {
  std::vector<at::Tensor> some;
  some.reserve(numbers.size());
  for (const size_t number : numbers) some.push_back(values.at(number));
  return some;
}

}  // namespace

std::vector<at::Tensor> Steps::run(const std::vector<at::Tensor>& tensors) const {
  std::vector<at::Tensor> values = tensors;
  for (const Call& call : calls) {
    torch::jit::Stack stack;
    for (const CallArgument& argument : call.arguments) {
      if (const auto* value = std::get_if<ValueAt>(&argument)) {
        stack.emplace_back(values.at(value->number));
      } else if (const auto* list = std::get_if<ListOfValues>(&argument)) {
        stack.emplace_back(chosen(values, list->numbers));
      } else if (const auto* weight = std::get_if<WeightAt>(&argument)) {
        stack.emplace_back(tensor_of(*weights.at(weight->number)));
      } else {
        stack.push_back(std::get<c10::IValue>(argument));
      }
    }
    call.op.callBoxed(stack);
    values.push_back(stack.front().toTensor());
  }
  return chosen(values, outputs);
}

// ---- text

bool can_be_written(const c10::IValue& constant) {
  if (constant.isDouble()) return std::isfinite(constant.toDouble());
  return constant.isNone() || constant.isBool() || constant.isInt() || constant.isString() || constant.isIntList();
}

namespace {

json written(const CallArgument& argument) {
  if (const auto* value = std::get_if<ValueAt>(&argument)) return {{"value", value->number}};
  if (const auto* list = std::get_if<ListOfValues>(&argument)) return {{"values", list->numbers}};
  if (const auto* weight = std::get_if<WeightAt>(&argument)) return {{"weight", weight->number}};
  const auto& constant = std::get<c10::IValue>(argument);
  if (constant.isBool()) return constant.toBool();
  if (constant.isInt()) return constant.toInt();
  if (constant.isDouble()) return constant.toDouble();
  if (constant.isString()) return constant.toStringRef();
  if (constant.isIntList()) return constant.toIntVector();
  return nullptr;
}

CallArgument argument_in(const json& text) {
  if (text.is_object()) {
    if (text.contains("value")) return ValueAt{text.at("value").get<size_t>()};
    if (text.contains("values")) return ListOfValues{text.at("values").get<std::vector<size_t>>()};
    return WeightAt{text.at("weight").get<size_t>()};
  }
  if (text.is_boolean()) return c10::IValue(text.get<bool>());
  if (text.is_number_integer()) return c10::IValue(text.get<int64_t>());
  if (text.is_number_float()) return c10::IValue(text.get<double>());
  if (text.is_string()) return c10::IValue(text.get<std::string>());
  if (text.is_array()) return c10::IValue(text.get<std::vector<int64_t>>());
  return c10::IValue();
}

}  // namespace

std::string Steps::text() const {
  json written_calls = json::array();
  for (const Call& call : calls) {
    json arguments = json::array();
    for (const CallArgument& argument : call.arguments) arguments.push_back(written(argument));
    written_calls.push_back(
        {{"name", call.op.schema().name()}, {"overload", call.op.schema().overload_name()}, {"arguments", arguments}});
  }
  return json{{"inputs", inputs}, {"outputs", outputs}, {"calls", written_calls}}.dump();
}

Steps Steps::read(const std::string& text, std::vector<WeightPtr> weights) {
  const json content = json::parse(text);
  Steps steps{content.at("inputs").get<size_t>(), {}, content.at("outputs").get<std::vector<size_t>>(), std::move(weights)};
  for (const json& call : content.at("calls")) {
    const auto name = call.at("name").get<std::string>();
    const auto overload = call.at("overload").get<std::string>();
    steps.calls.push_back({c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str()), {}});
    for (const json& argument : call.at("arguments")) steps.calls.back().arguments.push_back(argument_in(argument));
  }
  return steps;
}

}  // namespace bnfold::onednn
