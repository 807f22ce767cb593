#include "inputs.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <sstream>
#include <stdexcept>
#include <unordered_map>

namespace {

const std::unordered_map<std::string, at::ScalarType>& dtypes() {
  static const std::unordered_map<std::string, at::ScalarType> names = {
      {"float", at::kFloat},  {"float32", at::kFloat},     {"double", at::kDouble}, {"float64", at::kDouble}, {"half", at::kHalf},
      {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}, {"long", at::kLong},     {"int64", at::kLong},     {"int", at::kInt},
      {"int32", at::kInt},    {"uint8", at::kByte},        {"bool", at::kBool}};
  return names;
}

int64_t size_from(const std::string& text, const std::string& whole) {
  size_t used = 0;
  int64_t size = -1;
  try {
    size = std::stoll(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || text.empty() || size < 0) {
    throw std::invalid_argument(fmt::format("'{}' is no input; write its sizes as in 1,3,224,224 or 1,3,224,224:half", whole));
  }
  return size;
}

}  // namespace

InputShape input_shape(const std::string& text) {
  InputShape shape;
  const size_t colon = text.find(':');
  std::istringstream sizes(text.substr(0, colon) + ",");
  for (std::string size; std::getline(sizes, size, ',');) shape.sizes.push_back(size_from(size, text));
  if (colon != std::string::npos) {
    const std::string name = text.substr(colon + 1);
    const auto found = dtypes().find(name);
    if (found == dtypes().end()) {
      throw std::invalid_argument(
          fmt::format("'{}' is no dtype; use float, double, half, bfloat16, int, long, uint8 or bool", name));
    }
    shape.dtype = found->second;
  }
  return shape;
}

std::vector<c10::IValue> random_inputs(const torch::jit::Module& module, const std::vector<InputShape>& shapes, uint64_t seed) {
  at::TensorOptions options = at::TensorOptions().dtype(at::kFloat);
  for (const at::Tensor& parameter : module.parameters()) {
    if (!parameter.is_floating_point()) continue;
    options = parameter.options();
    break;
  }
  at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<c10::IValue> inputs;
  for (const InputShape& shape : shapes) {
    const at::ScalarType dtype = shape.dtype.value_or(c10::typeMetaToScalarType(options.dtype()));
    const bool floating = c10::isFloatingType(dtype);
    const at::Tensor values = floating ? at::randn(shape.sizes, generator, at::TensorOptions().dtype(at::kFloat))
                                       : at::randint(0, 2, shape.sizes, generator, at::TensorOptions().dtype(at::kLong));
    inputs.emplace_back(values.to(options.device(), dtype));
  }
  return inputs;
}
