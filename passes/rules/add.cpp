// A batch norm behind the sum of a value and a static tensor: the tensor takes scale and shift, the value the scale.
//
//   before   (v + b) --> norm(scale, shift) --> y          after   norm(scale, 0) of v, + b' --> y
//
// Formula     b' = scale * b + shift, as scale * (v + b) + shift = scale * v + (scale * b + shift).
// Conditions  one addend is a parameter or a constant                      no_rule_for_operator
//             alpha is 1                                                   operand_not_constant
//             the affine varies along the last dimension only              affine_varies_elsewhere
//             and b is a dense vector along it                             channels_differ
// Shapes      b [F], value [..., F].
#include <torch/csrc/jit/ir/constants.h>

#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer add_backward(const Site& site) {
  const auto addend = static_operand(site.store, site.node->input(1));
  if (!addend || !addend->tensor.defined() || addend->transposed) {
    return Decline{Reason::no_rule_for_operator, site.node, "the sum of two computed values"};
  }
  const auto alpha = jit::toIValue(site.node->namedInput("alpha"));
  if (!alpha || alpha->toScalar().toDouble() != 1.0) {
    return Decline{Reason::operand_not_constant, site.node, "alpha of add is not 1"};
  }
  if (!site.affine.varies_only_along(-1)) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are not the last dimension of the sum"};
  }
  const int64_t channels = site.affine.size_along(-1);
  if (addend->tensor.dim() != 1 || addend->tensor.size(0) != channels || !addend->tensor.is_floating_point()) {
    return Decline{Reason::channels_differ, site.node, "the addend is not a vector of the norm's channels"};
  }
  const at::Tensor scale = site.affine.scale.flatten().to(addend->tensor.device());
  const at::Tensor shift = site.affine.shift.flatten().to(addend->tensor.device());
  const at::Tensor folded = (scale * addend->tensor.to(at::kDouble) + shift).to(addend->tensor.scalar_type());
  return Pass{site.node->input(0),
              {site.affine.scale, at::zeros_like(site.affine.shift)},
              {SetInput{site.node, 1, folded, addend->leaf, attribute_name(site.store, addend->leaf)}}};
}

}  // namespace bnfold
