// Self-attention takes a norm before it into the weight and bias with which it projects its input to queries, keys and values, and one
// behind it into those of the projection at its end.
//
//   before   x --> norm(scale, shift) --> _native_multi_head_attention(W, b, V, c) --> y          after   x --> ...(W', b', V, c) --> y
//   before   x --> _native_multi_head_attention(W, b, V, c) --> norm(scale, shift) --> y          after   x --> ...(W, b, V', c') --> y
//
// Formula     W'[o, i] = W[o, i] * scale[i],   b'[o] = b[o] + sum over i of W[o, i] * shift[i], the rows of queries, keys and values alike.
//             V'[o, i] = scale[o] * V[o, i],   c'[o] = scale[o] * c[o] + shift[o]
// Conditions  before it: query, key and value are one value                value_has_other_readers
//             and it is this one, no weight                                weight_not_static
//             then those of absorb_into_inputs
//             behind it: the value is the result, not how much each value
//             counts in it                                                 operator_not_affine
//             then those of absorb_into_outputs
// Shapes      W [3*E, E], b [3*E], V [E, E], c [E], value and result [N, L, E].
#include "rules/kernel_rule.h"

namespace bnfold {

Answer attention_backward(const Site& site) {
  if (site.place != 0) return Decline{Reason::operator_not_affine, site.node, "how much each value counts is made by softmax"};
  return absorb_into_outputs(site, {7, 8}, -1);
}

Answer attention_forward(const Site& site) {
  const torch::jit::Node* node = site.node;
  if (site.place > 2) return Decline{Reason::weight_not_static, node, "the normalized value is its weight or mask"};
  if (node->input(0) != node->input(1) || node->input(0) != node->input(2)) {
    return Decline{Reason::value_has_other_readers, node, "its query, key and value are not one value"};
  }
  if (site.place != 0) return Pass{};  // asked once for each place of the one value
  return absorb_into_inputs(site, {5, 6}, -1, /*takes_shift=*/true);
}

}  // namespace bnfold
