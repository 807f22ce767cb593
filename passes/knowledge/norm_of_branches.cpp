#include "knowledge/norm_of_branches.h"

#include <algorithm>
#include <limits>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operators.h"
#include "knowledge/deciding_rank.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether dropping the nodes of a branch drops nothing but what it returns.
bool is_harmless(const jit::Block* branch) {
  const auto nodes = const_cast<jit::Block*>(branch)->nodes();
  return std::none_of(nodes.begin(), nodes.end(), [](const jit::Node* node) {
    const auto inputs = node->inputs();
    return node->hasSideEffects() || !node->blocks().empty() ||
           std::any_of(inputs.begin(), inputs.end(), [node](const jit::Value* input) { return writes_into(node, input); });
  });
}

// The norm whose output a branch returns, of a value from before the branch.
std::optional<Norm> norm_of(jit::Block* branch, const ParameterStore& store) {
  if (!is_harmless(branch)) return std::nullopt;
  for (jit::Node* node : branch->nodes()) {
    if (!may_be_norm(node)) continue;
    auto norm = read_norm(node, store);
    if (!norm || norm->node()->output(0) != branch->outputs()[0]) continue;
    const bool is_whole = norm->kind == Norm::batch_norm && std::holds_alternative<algebra::Affine>(norm->content);
    return is_whole && norm->input()->node()->owningBlock() != branch ? norm : std::nullopt;
  }
  return std::nullopt;
}

// The norm of the condition `node`, as the branch with `norm` computes it.
Norm whole(jit::Node* node, Norm norm) {
  norm.reader = norm.nodes.front();
  norm.nodes = {node};
  return norm;
}

// The rank at which a constant that broadcasts varies along dimension 1.
std::optional<int64_t> rank_along_channels(const at::Tensor& constant) {
  for (int64_t dimension = 0; dimension < constant.dim(); ++dimension) {
    if (constant.size(dimension) != 1) return constant.dim() - dimension + 1;
  }
  return std::nullopt;
}

bool are_the_same(const algebra::Affine& one, const algebra::Affine& other, at::ScalarType dtype) {
  if (one.scale.sizes() != other.scale.sizes()) return false;
  const double epsilon =
      dtype == at::kDouble ? std::numeric_limits<double>::epsilon() : static_cast<double>(std::numeric_limits<float>::epsilon());
  const auto size = [](const at::Tensor& tensor) { return tensor.abs().max().item<double>(); };
  const double allowed = 64 * epsilon * (size(one.scale) + size(one.shift));
  return size(one.scale - other.scale) <= allowed && size(one.shift - other.shift) <= allowed;
}

// Both norms as one: that of the second, which inference takes where gradients decide.
std::optional<Norm> common(jit::Node* node, const Norm& first, const Norm& second) {
  if (first.input() != second.input() || first.dtype != second.dtype) return std::nullopt;
  const auto& one = std::get<algebra::Affine>(first.content);
  const auto& other = std::get<algebra::Affine>(second.content);
  if (one.scale.device() != other.scale.device() || one.scale.numel() == 0) return std::nullopt;
  Norm norm = whole(node, second);
  if (first.along_channels == second.along_channels) {
    return are_the_same(one, other, first.dtype) ? std::optional<Norm>(norm) : std::nullopt;
  }
  norm.along_channels = false;
  norm.only_rank = rank_along_channels((first.along_channels ? other : one).scale);
  if (!norm.only_rank || *norm.only_rank < 2) return std::nullopt;
  const auto broadcast = [&](const Norm& part) { return part.affine(*norm.only_rank); };
  if (!are_the_same(broadcast(first), broadcast(second), first.dtype)) return std::nullopt;
  norm.content = broadcast(second);
  return norm;
}

}  // namespace

std::optional<Norm> read_branches(jit::Node* node, const ParameterStore& store) {
  if (node->kind() != jit::prim::If || node->outputs().size() != 1) return std::nullopt;
  if (const auto deciding = deciding_rank(node)) {
    const auto norm = norm_of(node->blocks().at(deciding->takes_first ? 1 : 0), store);
    if (!norm || norm->input() != deciding->value) return std::nullopt;
    Norm all = whole(node, *norm);
    all.never_rank = deciding->rank;
    return all;
  }
  const auto first = norm_of(node->blocks().at(0), store);
  const auto second = first ? norm_of(node->blocks().at(1), store) : std::nullopt;
  return second ? common(node, *first, *second) : std::nullopt;
}

}  // namespace bnfold
