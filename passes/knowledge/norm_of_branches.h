// A condition whose branches are one norm.
//
//   if x.dim() == 3: squeeze(norm(unsqueeze(x, 0)), 0) else: norm(x)       the norm, for every rank but 3: scripted instance norms
//   if x.requires_grad: x * scale + shift else: norm(x)                    the norm, where both are the same affine: frozen batch norms
//
// Conditions  it returns one value, and the branches that count compute nothing else that could be seen
//             each of those is a norm of one value from before the condition
//             two of them are the same affine up to the rounding of the dtype; one along dimension 1 and one that broadcasts are so for one
//             rank only
#pragma once

#include <optional>

#include "knowledge/find_norms.h"

namespace bnfold {

// The norm that `node` is, nothing where it is none.
std::optional<Norm> read_branches(torch::jit::Node* node, const ParameterStore& store);

}  // namespace bnfold
