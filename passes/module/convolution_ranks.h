// Ranks that LibTorch's own passes get wrong.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// LibTorch's peephole pass, which its executor runs too, takes it that the result of conv2d has a batch, and makes a constant of its rank. Where a
// branch was taken, or a norm is gone, it would do so in more places than in the module that came in. A convolution keeps the rank of
// its input, which is asked instead:
//
//   before   y = conv2d(x); dim(y)          after   y = conv2d(x); dim(x)
void ask_ranks_before_convolutions(torch::jit::Graph& graph);

}  // namespace bnfold
