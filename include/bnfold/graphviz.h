// The fold as a picture: the graph of a module before and after it.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>

#include "bnfold/bnfold.h"

namespace bnfold {

// Text for Graphviz, as `dot -Tsvg` takes it: on the left the graph of `original`, on the right that of `result.module`, which is what
// fold made of it. A box is an operator on tensors with the dotted path of its layer. Norms are colored by the direction in which they
// were folded, or as kept with the reason; a dashed arrow leads from a folded norm to each layer that took it. A box that reads more than 6
// others says how many, and has arrows from the last 6.
// Throws Error where `original` can't be folded.
std::string to_graphviz(const torch::jit::Module& original, const FoldResult& result);

}  // namespace bnfold
