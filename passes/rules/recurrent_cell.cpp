// One step of a recurrent layer takes a norm before it into the weight and bias with which it reads its input.
//
//   before   x --> norm(scale, shift) --> gru_cell(h, W_ih, W_hh, b_ih, b_hh) --> h'          after   x --> gru_cell(h, W_ih', W_hh, b_ih', b_hh) --> h'
//
// Formula     W_ih'[o, i] = W_ih[o, i] * scale[i],   b_ih'[o] = b_ih[o] + sum over i of W_ih[o, i] * shift[i], the gates among the rows.
// Conditions  the value is its input                                       weight_not_static
//             it has biases, or there is no shift                          shift_not_passable
//             then those of absorb_into_inputs
// Backward    no rule: what leaves it is a product with a gate and a tanh.
// Shapes      W_ih [G*H, I], b_ih [G*H], value [I] or [N, I].
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer recurrent_cell_forward(const Site& site) {
  const jit::Node* node = site.node;
  if (site.place != 0) return Decline{Reason::weight_not_static, node, "the normalized value is its state or a weight"};
  const KernelInputs inputs{2, 4};
  const auto bias = planned_operand(site, *inputs.bias);
  if (bias && !bias->tensor.defined() && algebra::has_shift(site.affine)) {
    return Decline{Reason::shift_not_passable, node, "it has no bias to take the shift"};
  }
  return absorb_into_inputs(site, inputs, -1, /*takes_shift=*/true);
}

}  // namespace bnfold
