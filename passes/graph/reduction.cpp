#include "graph/reduction.h"

#include <algorithm>

#include "graph/constants.h"

namespace bnfold {

std::optional<Reduction> reduction_of(const torch::jit::Node* node, std::optional<int64_t> rank) {
  if (!has_argument(node, "dim") || !has_argument(node, "keepdim")) return std::nullopt;
  auto dimensions = constant_ints(node->namedInput("dim"));
  const auto keeps = constant_bool(node->namedInput("keepdim"));
  if (!dimensions || dimensions->empty() || !keeps) return std::nullopt;
  for (int64_t& dimension : *dimensions) {
    const auto place = from_front(dimension, rank);
    if (!place) return std::nullopt;
    dimension = *place;
  }
  std::sort(dimensions->begin(), dimensions->end());
  return Reduction{std::move(*dimensions), *keeps};
}

}  // namespace bnfold
