// A norm beside a convolution of the same value, their results summed up, moves into the convolution (RepVGG, MobileOne, FastViT).
//
//   before   norm(scale, shift) of x, + conv(x; W, b) --> y          after   conv(x; W', b') --> y
//
// Formula     The norm is a convolution whose kernel has scale[c] in the middle of channel c and 0 elsewhere, and bias shift, so
//             W' = W with scale[o] added to the middle tap of output o's own input, b' = b + shift. Where the sum counts the norm p times
//             and the convolution q times, p/q * scale and p/q * shift are added.
// Conditions  nobody but the sum reads the norm, nobody but sums the convolution and the sums between them
//             what is added to the norm may take the place of the sum: the convolution is in it, all of it is dense in memory, and it is
//             memory of its own, made in each round of a loop
//             the convolution reads x itself, has as many outputs as inputs, stride 1, odd kernels, and keeps the size of x by
//             zero padding: then its middle tap reads the pixel itself, and never padding
//             the mean is not large beside the deviation in a narrow dtype, as for each layer that multiplies before it is taken off
//             weights as in kernel_rule.h
#pragma once

#include <optional>

#include "knowledge/find_norms.h"
#include "plan/plan.h"

namespace bnfold {

// The plan that folds `norm`, whose affine is `affine`, into a convolution beside it; nothing where there is none.
std::optional<Plan> plan_sideways(const Norm& norm, const algebra::Affine& affine, const Knowledge& known);

}  // namespace bnfold
