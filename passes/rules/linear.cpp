// A batch norm behind or before a linear layer moves into its weight and bias.
//
//   before   x --> linear(W, b) --> norm(scale, shift) --> y          after   x --> linear(W', b') --> y
//            x --> norm(scale, shift) --> linear(W, b) --> y                  x --> linear(W', b') --> y
//
// Formula     behind: W'[o, i] = scale[o] * W[o, i],   b'[o] = scale[o] * b[o] + shift[o]
//             before: W'[o, i] = W[o, i] * scale[i],   b'[o] = b[o] + sum over i of W[o, i] * shift[i]
// Conditions  before it: the value is its input                            weight_not_static
//             then those of absorb_into_outputs and absorb_into_inputs. A norm of [N, L, F] works along L, not along the features: then the
//             affine varies elsewhere. Where nothing proves the rank, the folded module checks it.
// Shapes      W [O, I], b [O], value [..., features].
#include "rules/kernel_rule.h"

namespace bnfold {

namespace {

KernelInputs kernel_inputs(const Site& site) {
  const auto weight = planned_operand(site, 1);
  const bool transposed = weight && weight->is_transposed();
  return {1, 2, transposed ? algebra::KernelLayout::output_last : algebra::KernelLayout::output_first};
}

}  // namespace

Answer linear_backward(const Site& site) {
  return absorb_into_outputs(site, kernel_inputs(site), -1);
}

Answer linear_forward(const Site& site) {
  if (site.place != 0) {
    return Decline{Reason::weight_not_static, site.node, "the normalized value is its weight or bias"};
  }
  return absorb_into_inputs(site, kernel_inputs(site), -1, /*takes_shift=*/true);
}

}  // namespace bnfold
