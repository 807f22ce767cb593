#include "fuse/pad.h"

#include <algorithm>

#include "constants.h"
#include "operators.h"

namespace bnfold {

namespace jit = torch::jit;

bool pads_with_zeros(const jit::Node* node) {
  if (!is_one_of(node, {"pad", "constant_pad_nd"})) return false;
  if (is_one_of(node, {"pad"}) && constant_string(node->namedInput("mode")) != "constant") return false;
  const jit::Value* value = node->namedInput("value");
  return value->type()->kind() == c10::TypeKind::NoneType || constant_number(value) == 0.0;
}

std::optional<std::vector<int64_t>> even_padding(const jit::Node* node) {
  auto amounts = constant_ints(node->namedInput("pad"));  // left, right, top, bottom, and so on
  if (!amounts || amounts->size() % 2 != 0) return std::nullopt;
  amounts->resize(std::max<size_t>(amounts->size(), 4));
  const auto& a = *amounts;
  const bool even = a[0] == a[1] && a[2] == a[3] && a[0] >= 0 && a[2] >= 0;
  const bool elsewhere = std::any_of(a.begin() + 4, a.end(), [](int64_t amount) { return amount != 0; });
  if (!even || elsewhere) return std::nullopt;
  return std::vector<int64_t>{a[2], a[0]};
}

}  // namespace bnfold
