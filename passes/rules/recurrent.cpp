// A recurrent layer takes a norm before it into the weights and biases with which its first layer reads the input, in both directions.
//
//   before   x --> norm(scale, shift) --> lstm(W_ih, b_ih, ...) --> y          after   x --> lstm(W_ih', b_ih', ...) --> y
//
// Formula     W_ih'[o, i] = W_ih[o, i] * scale[i],   b_ih'[o] = b_ih[o] + sum over i of W_ih[o, i] * shift[i], the gates among the rows.
// Conditions  the value is its input                                       weight_not_static
//             its list of weights is made right there, for it alone        list_not_visible
//             has_biases, num_layers and bidirectional are constants that
//             fit the list                                                 operand_not_constant
//             it has biases, or there is no shift                          shift_not_passable
//             then those of absorb_into_inputs
// Backward    no rule: what leaves it is a product with a gate and a tanh.
// Shapes      W_ih [G*H, I], b_ih [G*H], value [..., I].
#include "graph/constants.h"
#include "graph/list_maker.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer recurrent_forward(const Site& site) {
  const jit::Node* node = site.node;
  if (site.place != 0) return Decline{Reason::weight_not_static, node, "the normalized value is its state or a weight"};
  jit::Value* list = site.node->namedInput("params");
  if (!items_of_list(list) || list->uses().size() != 1) {
    return Decline{Reason::list_not_visible, node, "its list of weights is built elsewhere"};
  }
  const auto has_biases = constant_bool(node->namedInput("has_biases"));
  const auto layers = constant_int(node->namedInput("num_layers"));
  const auto bidirectional = constant_bool(node->namedInput("bidirectional"));
  const auto number = static_cast<int64_t>(list->node()->inputs().size());
  const int64_t cells = layers.value_or(0) * (bidirectional.value_or(false) ? 2 : 1);
  if (!has_biases || !bidirectional || cells < 1 || number % cells != 0 || number / cells < (*has_biases ? 4 : 2)) {
    return Decline{Reason::operand_not_constant, node, "how many layers and directions it has is computed while the module runs"};
  }
  if (!*has_biases && algebra::has_shift(site.affine)) {
    return Decline{Reason::shift_not_passable, node, "it has no bias to take the shift"};
  }
  const Site weights{list->node(), 0, site.affine, site.norm_dtype, site.from_batch_norm, site.known, site.planned};
  Absorb all;
  for (int64_t direction = 0; direction < (*bidirectional ? 2 : 1); ++direction) {
    const auto first = static_cast<size_t>(direction * (number / cells));
    const KernelInputs inputs{first, *has_biases ? std::optional<size_t>(first + 2) : std::nullopt};
    const Answer answer = absorb_into_inputs(weights, inputs, -1, /*takes_shift=*/true);
    const auto* absorb = std::get_if<Absorb>(&answer);
    if (absorb == nullptr) return answer;
    all.edits.insert(all.edits.end(), absorb->edits.begin(), absorb->edits.end());
    all.into = absorb->into;
  }
  return all;
}

}  // namespace bnfold
