// A batch norm behind a product with a static matrix, as tracing and older scripts spell a linear layer, moves into it.
//
//   before   addmm(b, x, W) --> norm(scale, shift) --> y          after   addmm(b', x, W') --> y
//            matmul(x, W)   --> norm(scale, shift) --> y                  matmul(x, W') + b' --> y
//
// Formula     W'[i, o] = scale[o] * W[i, o],   b'[o] = scale[o] * b[o] + shift[o]; without a bias, b' = shift is added if it is not 0.
//             W may be the transpose of a parameter.
// Conditions  beta and alpha of addmm are 1                                operand_not_constant
//             then those of absorb_into_kernel; where nothing proves the rank of a matmul, the folded module checks it
// Shapes      W [I, O], b [O], value [..., O].
#include <torch/csrc/jit/ir/constants.h>

#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_one(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  return constant && constant->isScalar() && constant->toScalar().toDouble() == 1.0;
}

algebra::KernelLayout layout_of(const jit::Value* right) {
  return right->node()->kind() == jit::aten::t ? algebra::KernelLayout::output_first : algebra::KernelLayout::output_last;
}

}  // namespace

Answer matmul_backward(const Site& site) {
  jit::Node* node = site.node;
  if (node->kind() == jit::aten::addmm) {
    if (!is_one(node->namedInput("beta")) || !is_one(node->namedInput("alpha"))) {
      return Decline{Reason::operand_not_constant, node, "alpha or beta of addmm is not 1"};
    }
    return absorb_into_kernel(site, {2, 0, layout_of(node->input(2))}, -1);
  }
  const auto right = static_operand(site.store, node->input(1));
  if (right && right->tensor.defined() && right->tensor.dim() != 2) {
    return Decline{Reason::weight_not_static, node, "the right operand of matmul is not a matrix"};
  }
  return absorb_into_kernel(site, {1, std::nullopt, layout_of(node->input(1))}, -1);
}

}  // namespace bnfold
