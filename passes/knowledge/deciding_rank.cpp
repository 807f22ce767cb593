#include "knowledge/deciding_rank.h"

#include "graph/constants.h"

namespace bnfold {

namespace jit = torch::jit;

std::optional<DecidingRank> deciding_rank(const jit::Node* node) {
  const jit::Node* condition = node->input()->node();
  const bool is_negated = condition->kind() == jit::aten::__not__;
  if (is_negated) condition = condition->input()->node();
  if (condition->kind() != jit::aten::eq && condition->kind() != jit::aten::ne) return std::nullopt;
  const jit::Node* dimension = condition->input(0)->node();
  const auto rank = constant_int(condition->input(1));
  if (dimension->kind() != jit::aten::dim || !rank) return std::nullopt;
  return DecidingRank{dimension->input(), *rank, (condition->kind() == jit::aten::eq) != is_negated};
}

}  // namespace bnfold
