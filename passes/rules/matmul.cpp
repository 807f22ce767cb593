// A batch norm behind or before a product with a static matrix, as tracing and older scripts spell a linear layer, moves into it.
//
//   before   addmm(b, x, W) --> norm(scale, shift) --> y          after   addmm(b', x, W') --> y
//            matmul(x, W)   --> norm(scale, shift) --> y                  matmul(x, W') + b' --> y
//            x --> norm(scale, shift) --> matmul(x, W) --> y              matmul(x, W') + b' --> y
//
// Formula     behind: W'[i, o] = scale[o] * W[i, o],   b'[o] = scale[o] * b[o] + shift[o]
//             before: W'[i, o] = scale[i] * W[i, o],   b'[o] = b[o] + sum over i of W[i, o] * shift[i]
//             Without a bias, b' is added behind the product if it is not 0. W may be the transpose of a parameter, and repeated for each
//             element of a batch, bmm(x, W.expand(N, I, O)), as core ATen spells a linear layer of what is permuted.
// Conditions  beta and alpha of addmm are 1                                operand_not_constant
//             the right operand is a static matrix                         weight_not_static
//             then those of absorb_into_outputs and absorb_into_inputs
// Shapes      W [I, O], b [O], value [..., features].
#include "graph/constants.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

algebra::KernelLayout layout_of(const std::optional<StaticOperand>& right) {
  return right && right->is_transposed() ? algebra::KernelLayout::output_first : algebra::KernelLayout::output_last;
}

std::variant<KernelInputs, Decline> kernel_inputs(const Site& site) {
  const jit::Node* node = site.node;
  if (node->kind() == jit::aten::addmm) {
    if (constant_number(node->namedInput("beta")) != 1.0 || constant_number(node->namedInput("alpha")) != 1.0) {
      return Decline{Reason::operand_not_constant, node, "alpha or beta of addmm is not 1"};
    }
    return KernelInputs{2, 0, layout_of(planned_operand(site, 2))};
  }
  if (const auto repeated = planned_repeated_matrix(site, 1)) {
    return KernelInputs{1, std::nullopt, layout_of(repeated), 1, /*repeated=*/true};
  }
  const auto right = planned_operand(site, 1);
  if (right && right->tensor.defined() && right->tensor.dim() != 2) {
    return Decline{Reason::weight_not_static, node, "the right operand of matmul is not a matrix"};
  }
  return KernelInputs{1, std::nullopt, layout_of(right)};
}

}  // namespace

Answer matmul_backward(const Site& site) {
  const auto inputs = kernel_inputs(site);
  if (const auto* decline = std::get_if<Decline>(&inputs)) return *decline;
  return absorb_into_outputs(site, std::get<KernelInputs>(inputs), -1);
}

Answer matmul_forward(const Site& site) {
  const auto inputs = kernel_inputs(site);
  if (const auto* decline = std::get_if<Decline>(&inputs)) return *decline;
  if (site.place + 1 != std::get<KernelInputs>(inputs).weight) {
    return Decline{Reason::weight_not_static, site.node, "the normalized value is not its left operand"};
  }
  return absorb_into_inputs(site, std::get<KernelInputs>(inputs), -1, /*takes_shift=*/true);
}

}  // namespace bnfold
