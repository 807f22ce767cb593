// Conditions of which a result is a tuple, as scripted attention has them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Where each branch makes the tuple, or leaves it uninitialized since no run reads it then, makes one result of each element:
//
//   before   t = if c: (a, b) else: (u, v)          after   p, q = if c: a, b else: u, v
//                                                           t = (p, q)
void split_tuple_results(torch::jit::Graph& graph);

}  // namespace bnfold
