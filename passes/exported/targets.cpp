#include "exported/targets.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bnfold::exported {

namespace jit = torch::jit;

namespace {

std::vector<std::string> parts_of(const std::string& target) {
  std::vector<std::string> parts;
  size_t start = 0;
  for (size_t dot = target.find('.'); dot != std::string::npos; dot = target.find('.', start)) {
    parts.push_back(target.substr(start, dot - start));
    start = dot + 1;
  }
  parts.push_back(target.substr(start));
  return parts;
}

bool names_operator(const std::vector<std::string>& parts) {
  return parts.size() == 5 && parts[0] == "torch" && parts[1] == "ops";
}

constexpr std::array kDtypes = {
    std::pair(1, at::kByte),          std::pair(2, at::kChar),           std::pair(3, at::kShort),
    std::pair(4, at::kInt),           std::pair(5, at::kLong),           std::pair(6, at::kHalf),
    std::pair(7, at::kFloat),         std::pair(8, at::kDouble),         std::pair(9, at::kComplexHalf),
    std::pair(10, at::kComplexFloat), std::pair(11, at::kComplexDouble), std::pair(12, at::kBool),
    std::pair(13, at::kBFloat16)};

constexpr std::array kMemoryFormats = {std::pair(1, at::MemoryFormat::Contiguous), std::pair(2, at::MemoryFormat::ChannelsLast),
                                       std::pair(3, at::MemoryFormat::ChannelsLast3d), std::pair(4, at::MemoryFormat::Preserve)};

template <typename Pairs>
auto second_of(const Pairs& pairs, int64_t first) -> std::optional<decltype(pairs.front().second)> {
  const auto found = std::find_if(pairs.begin(), pairs.end(), [first](const auto& pair) { return pair.first == first; });
  if (found == pairs.end()) return std::nullopt;
  return found->second;
}

template <typename Pairs, typename Second>
int64_t first_of(const Pairs& pairs, Second second) {
  return std::find_if(pairs.begin(), pairs.end(), [second](const auto& pair) { return pair.second == second; })->first;
}

}  // namespace

const c10::FunctionSchema* schema_of(const std::string& target) {
  const std::vector<std::string> parts = parts_of(target);
  if (!names_operator(parts) || parts[2] != "aten") return nullptr;
  const auto found = jit::findOperatorFor({"aten::" + parts[3], parts[4] == "default" ? "" : parts[4]});
  return found ? &found->schema() : nullptr;
}

std::string target_of(const c10::FunctionSchema& schema) {
  const std::string& overload = schema.overload_name();
  return fmt::format("torch.ops.aten.{}.{}", schema.name().substr(schema.name().find("::") + 2),
                     overload.empty() ? "default" : overload);
}

std::optional<c10::Symbol> number_operator(const std::string& target) {
  static const std::unordered_map<std::string, c10::Symbol> operators = {
      {"torch.ops.aten.sym_size.int", jit::aten::size},
      {"torch.ops.aten.sym_numel.default", c10::Symbol::fromQualString("aten::numel")},
      {"_operator.add", jit::aten::add},
      {"_operator.sub", jit::aten::sub},
      {"_operator.mul", jit::aten::mul},
      {"_operator.floordiv", jit::aten::floordiv},
      {"_operator.mod", jit::aten::remainder},
      {"_operator.neg", jit::aten::neg},
      {"_operator.eq", jit::aten::eq},
      {"_operator.ne", jit::aten::ne},
      {"_operator.lt", jit::aten::lt},
      {"_operator.le", jit::aten::le},
      {"_operator.gt", jit::aten::gt},
      {"_operator.ge", jit::aten::ge}};
  const auto found = operators.find(target);
  return found == operators.end() ? std::nullopt : std::optional<c10::Symbol>(found->second);
}

c10::Symbol opaque_kind(const std::string& target, bool writes) {
  const std::vector<std::string> parts = parts_of(target);
  const bool is_region = parts.size() == 4 && parts[2] == "higher_order";
  if (is_region) return c10::Symbol::fromQualString((writes ? "opaque::" : "higher_order::") + parts[3]);
  std::string name = names_operator(parts) ? parts[2] + "." + parts[3] : target;
  std::replace(name.begin(), name.end(), ':', '_');
  return c10::Symbol::fromQualString("opaque::" + name);
}

std::optional<at::ScalarType> dtype_of(int64_t number) {
  return second_of(kDtypes, number);
}

std::optional<at::MemoryFormat> memory_format_of(int64_t number) {
  return second_of(kMemoryFormats, number);
}

std::optional<at::Layout> layout_of(int64_t number) {
  constexpr int64_t strided = 7;
  return number == strided ? std::optional<at::Layout>(at::kStrided) : std::nullopt;
}

int64_t number_of(at::ScalarType dtype) {
  return first_of(kDtypes, dtype);
}

int64_t number_of(at::MemoryFormat format) {
  return first_of(kMemoryFormats, format);
}

}  // namespace bnfold::exported
