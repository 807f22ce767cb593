// A batch norm behind a convolution, transposed or not, moves into its weight and bias.
//
//   before   x --> conv(W, b) --> norm(scale, shift) --> y          after   x --> conv(W', b') --> y
//
// Formula     W'[o, ...] = scale[o] * W[o, ...],   b'[o] = scale[o] * b[o] + shift[o]
//             A transposed convolution keeps output channel o of group g in W[i, o - g*O/groups, ...], for i in group g.
//             Stride, dilation and padding of any mode don't matter: they act before the sum, the affine behind it.
// Conditions  the arguments `groups` and `transposed` are constants        operand_not_constant
//             the input has a batch dimension: hints and proofs don't say
//             otherwise, and where they say nothing, the module checks it  input_not_batched
//             then those of absorb_into_kernel
// Shapes      W [O, I/groups, ...] or, transposed, [I, O/groups, ...], b [O], value [N, O, ...].
#include <torch/csrc/jit/ir/constants.h>

#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<bool> is_transposed(const jit::Node* node) {
  if (!node->schema().argumentIndexWithName("transposed")) {
    return std::string_view(node->kind().toUnqualString()).substr(0, 14) == "conv_transpose";
  }
  const auto transposed = jit::toIValue(node->namedInput("transposed"));
  if (!transposed) return std::nullopt;
  return transposed->toBool();
}

}  // namespace

Answer conv_backward(const Site& site) {
  const auto groups = jit::toIValue(site.node->namedInput("groups"));
  const auto transposed = is_transposed(site.node);
  if (!groups || !transposed) {
    return Decline{Reason::operand_not_constant, site.node, "groups or transposed is computed while the module runs"};
  }
  const auto weight = static_operand(site.store, site.node->namedInput("weight"));
  if (weight && weight->tensor.defined() && weight->tensor.dim() != site.affine.rank()) {
    return Decline{Reason::input_not_batched, site.node, "the value has no batch dimension"};
  }
  const auto index = [&](const char* name) { return static_cast<size_t>(*site.node->schema().argumentIndexWithName(name)); };
  const auto layout = *transposed ? algebra::KernelLayout::input_first : algebra::KernelLayout::output_first;
  return absorb_into_kernel(site, {index("weight"), index("bias"), layout, groups->toInt()}, 1);
}

}  // namespace bnfold
