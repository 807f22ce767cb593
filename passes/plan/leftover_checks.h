// Checks that a module makes of the ranks and sizes of its values, where what is known decides them.
//
//   before   if dim(x) != 4: raise          after   the check is gone
//            y = conv2d(x, ...)                     y = conv2d(x, ...)
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "graph/parameter_store.h"
#include "knowledge/ranks.h"

namespace bnfold {

// Takes out each condition with a branch that raises an error, where it is proven that the other branch is taken: by an operator, or by a check
// before it. Where examples tell so, one check of the graph's input takes its place, in front of all else, and none where the module runs no
// checks. `ranks` must not have read the checks: one would prove itself.
void remove_leftover_checks(torch::jit::Graph& graph, const ParameterStore& store, Ranks& ranks, bool runs_checks);

}  // namespace bnfold
