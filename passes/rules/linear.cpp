// A batch norm behind a linear layer moves into its weight and bias.
//
//   before   x --> linear(W, b) --> norm(scale, shift) --> y          after   x --> linear(W', b') --> y
//
// Formula     W'[o, i] = scale[o] * W[o, i],   b'[o] = scale[o] * b[o] + shift[o]
// Conditions  those of absorb_into_kernel. Behind a value of rank 3, [N, L, F], a norm works along L, not along the features: then the
//             affine varies elsewhere. Where nothing proves the rank, the folded module checks it.
// Shapes      W [O, I], b [O], value [..., O].
#include "rules/kernel_rule.h"

namespace bnfold {

Answer linear_backward(const Site& site) {
  torch::jit::Value* weight = site.node->input(1);
  const auto layout =
      weight->node()->kind() == torch::jit::aten::t ? algebra::KernelLayout::output_last : algebra::KernelLayout::output_first;
  return absorb_into_kernel(site, {1, 2, layout}, -1);
}

}  // namespace bnfold
