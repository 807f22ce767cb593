// Self-attention takes a norm before it into the weight and bias with which it projects its input to queries, keys and values.
//
//   before   x --> norm(scale, shift) --> _native_multi_head_attention(W, b) --> y          after   x --> ...(W', b') --> y
//
// Formula     W'[o, i] = W[o, i] * scale[i],   b'[o] = b[o] + sum over i of W[o, i] * shift[i], the rows of queries, keys and values alike.
// Conditions  query, key and value are one value                           value_has_other_readers
//             and it is this one, no weight                                weight_not_static
//             then those of absorb_into_inputs
// Backward    no rule: the results are weighted by a softmax, and projected.
// Shapes      W [3*E, E], b [3*E], value [N, L, E].
#include "rules/kernel_rule.h"

namespace bnfold {

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
