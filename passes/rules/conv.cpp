// A batch norm behind or before a convolution, transposed or not, moves into its weight and bias.
//
//   before   x --> conv(W, b) --> norm(scale, shift) --> y          after   x --> conv(W', b') --> y
//            x --> norm(scale, shift) --> conv(W, b) --> y                  x --> conv(W', b') --> y
//
// Formula     behind: W'[o, ...] = scale[o] * W[o, ...],   b'[o] = scale[o] * b[o] + shift[o]
//             A transposed convolution keeps output channel o of group g in W[i, o - g*O/groups, ...], for i in group g.
//             Stride, dilation and padding of any mode don't matter: they act before the sum, the affine behind it.
//             before: W'[o, i, ...] = W[o, i, ...] * scale[i],   b'[o] = b[o] + sum over i and taps of W[o, i, ...] * shift[i]
//             The scale always; the shift only where each output reads each tap once: without padding, and for a transposed
//             convolution only with a kernel of 1, since the others reach the border, and the outputs in the middle, with some taps.
// Conditions  before it: the value is its input                            weight_not_static
//             the arguments `groups` and `transposed` are constants        operand_not_constant
//             the input has a batch dimension: hints and proofs don't say
//             otherwise, and where they say nothing, the module checks it  input_not_batched
//             then those of absorb_into_outputs and absorb_into_inputs, of which the padding is one
// Shapes      W [O, I/groups, ...] or, transposed, [I, O/groups, ...], b [O], value [N, channels, ...].
#include <algorithm>

#include "graph/constants.h"
#include "graph/operators.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_pointwise(const at::Tensor& weight) {
  return std::all_of(weight.sizes().begin() + 2, weight.sizes().end(), [](int64_t size) { return size == 1; });
}

// Whether every output is the sum over all taps.
bool reads_every_tap(const jit::Node* node, const at::Tensor& weight, bool transposed) {
  if (transposed && (!is_pointwise(weight) || !is_list_of(node->namedInput("stride"), 1) ||
                     !is_list_of(node->namedInput("output_padding"), 0))) {
    return false;
  }
  const auto mode = constant_string(node->namedInput("padding"));
  if (mode) return *mode == "valid" || is_pointwise(weight);
  return is_list_of(node->namedInput("padding"), 0);
}

std::variant<KernelInputs, Decline> kernel_inputs(const Site& site) {
  const auto groups = constant_int(site.node->namedInput("groups"));
  const auto transposed = is_transposed(site.node);
  if (!groups || !transposed) {
    return Decline{Reason::operand_not_constant, site.node, "groups or transposed is computed while the module runs"};
  }
  const auto weight = static_operand(site.known.store, site.node->namedInput("weight"));
  if (weight && weight->tensor.defined() && weight->tensor.dim() != site.affine.rank()) {
    return Decline{Reason::input_not_batched, site.node, "the value has no batch dimension"};
  }
  const auto layout = *transposed ? algebra::KernelLayout::input_first : algebra::KernelLayout::output_first;
  return KernelInputs{argument_index(site.node, "weight"), argument_index(site.node, "bias"), layout, *groups};
}

}  // namespace

Answer conv_backward(const Site& site) {
  const auto inputs = kernel_inputs(site);
  if (const auto* decline = std::get_if<Decline>(&inputs)) return *decline;
  return absorb_into_outputs(site, std::get<KernelInputs>(inputs), 1);
}

Answer conv_forward(const Site& site) {
  if (site.place != 0) return Decline{Reason::weight_not_static, site.node, "the normalized value is its weight or bias"};
  const auto inputs = kernel_inputs(site);
  if (const auto* decline = std::get_if<Decline>(&inputs)) return *decline;
  const KernelInputs& kernel = std::get<KernelInputs>(inputs);
  const auto weight = planned_operand(site, kernel.weight);
  const bool takes_shift = weight && weight->tensor.defined() &&
                           reads_every_tap(site.node, weight->tensor, kernel.layout == algebra::KernelLayout::input_first);
  return absorb_into_inputs(site, kernel, 1, takes_shift);
}

}  // namespace bnfold
