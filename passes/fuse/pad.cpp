#include "fuse/pad.h"

#include <algorithm>

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

bool pads_with_zeros(const jit::Node* node) {
  if (pads_with_constant(node) != true) return false;
  const jit::Value* value = node->namedInput("value");
  return value->type()->kind() == c10::TypeKind::NoneType || constant_number(value) == 0.0;
}

std::optional<std::vector<int64_t>> even_padding(const jit::Node* node, size_t dimensions) {
  auto amounts = constant_ints(node->namedInput("pad"));  // left, right, top, bottom, and so on
  if (!amounts || amounts->size() % 2 != 0) return std::nullopt;
  amounts->resize(std::max(amounts->size(), 2 * dimensions));
  std::vector<int64_t> padding(dimensions);
  for (size_t i = 0; i < amounts->size() / 2; ++i) {
    const int64_t one_side = amounts->at(2 * i);
    if (one_side != amounts->at(2 * i + 1) || one_side < 0 || (i >= dimensions && one_side != 0)) return std::nullopt;
    if (i < dimensions) padding[dimensions - 1 - i] = one_side;
  }
  return padding;
}

}  // namespace bnfold
