// A sum passes one scale to both addends and the shift to one of them.
//
//   before   (u + k*v) --> norm(scale, shift) --> y          after   norm(scale, shift) of u, + k * norm(scale, 0) of v --> y
//            norm(scale, shift) of u, + k*v --> y            after   (u + k * v/scale) --> norm(scale, shift) --> y
//            norm(1, shift) of u, + k*v --> y                after   u + k * norm(1, shift/k) of v --> y          where a layer makes v
//            x --> conv(W), + k*x --> norm(scale, shift) --> y        after   x --> conv(W') --> norm(scale, shift) --> y
//
// Formula     scale * (u + k*v) + shift = (scale*u + shift) + k * (scale*v). A static addend takes its part itself: b' = scale*b + shift.
//             In a branch it is b' = scale*b, and the first addend takes the shift: the other branch may return the same value as it is.
//             Of two computed addends the first takes the shift, or the second, scale*u + k * (scale*v + shift/k), where that is what a
//             layer makes for this sum alone, and the first is not.
//             Zeros stay as they are: scale * (0 + v) + shift = 0 + (scale*v + shift), whatever the scale.
//             A number c becomes 0: scale * (u + k*c) + shift = scale*u + (scale*k*c + shift), (scale*u + shift) + k*c likewise.
//             (scale*u + shift) + k*v = scale * (u + k * v/scale) + shift; where the affine is missing in v, with u/scale and k*shift.
//             A layer that makes the other addend for this sum alone takes the shift, too: = scale * (u + k * (v/scale + shift/(k*scale))).
//             conv(x; W) + k*x = conv(x; W'), with W' as of absorb_identity.
// Conditions  alpha, k, is a constant, and so is a number that is added    operand_not_constant
//             before it: scale differs from 0, or is 1                     scale_not_invertible
//             behind it: the addends are two values                        value_has_other_readers
//             before it: the other addend has no more dimensions           rank_unknown
//             no computed addend is broadcast                              sizes_unknown
//             a static addend is of the norm's dtype                       weight_dtype_unsupported
//             and on its device                                            devices_differ
//             and varies where the affine does, or nowhere                 affine_varies_elsewhere
// Shapes      any that broadcast; a computed addend must not be broadcast along a dimension along which the affine varies.
#include <algorithm>

#include "graph/addends.h"
#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"
#include "knowledge/find_norms.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The number that the second addend is: a trace makes a tensor without dimensions of one.
std::optional<double> number_added(const Site& site) {
  const jit::Value* value = site.node->input(1);
  if (value->type()->kind() != c10::TypeKind::TensorType) return constant_number(value);
  const auto tensor = site.known.store.read(value);
  if (!tensor || !tensor->defined() || tensor->dim() != 0 || tensor->is_complex()) return std::nullopt;
  return tensor->item<double>();
}

// The edit that leaves the number out, which the affine takes in: with it, scale*u + (scale*c + shift - c) + c would have the rounding
// error of c.
Edit without_number(const Site& site) {
  jit::Value* value = site.node->input(1);
  if (value->type()->kind() != c10::TypeKind::TensorType) return SetNumber{site.node, 1, 0};
  const at::Tensor zero = at::zeros_like(*site.known.store.read(value));
  return SetInput{site.node, 1, zero, value, attribute_name(site.known.store, value)};
}

// Whether input `place` of the sum is all zeros in every run, in an order in memory that the sum may have as well.
bool is_zeros(const Site& site, size_t place) {
  jit::Value* value = site.node->input(place);
  if (site.known.store.memory().may_be_written(value)) return false;
  if (is_one_of(value->node(), {"zeros", "new_zeros"})) return true;
  if (is_one_of(value->node(), {"zeros_like"})) return is_dense(value->node()->input(0));
  const auto tensor = site.known.store.read(value);
  const bool is_plain =
      tensor && tensor->defined() && tensor->layout() == at::kStrided && !tensor->is_meta() && !tensor->is_quantized();
  return is_plain && tensor->is_contiguous() && tensor->eq(0).all().item<bool>();
}

// Which addend is zeros beside the other one, that counts once; nothing where neither is.
std::optional<size_t> place_of_zeros(const Site& site) {
  if (site.node->input(1)->type()->kind() != c10::TypeKind::TensorType) return std::nullopt;
  if (weight_in_sum(site.node, 1) == 1.0 && is_zeros(site, 0)) return 0;
  return is_zeros(site, 1) ? std::optional<size_t>(1) : std::nullopt;
}

// Then the other branch may return an addend as it is, which wants the whole affine there.
bool is_in_branch(const jit::Node* node) {
  const jit::Node* owner = node->owningBlock()->owningNode();
  return owner != nullptr && owner->kind() == jit::prim::If;
}

Answer into_static_addend(const Site& site, const StaticOperand& addend, double factor) {
  const algebra::Affine& affine = site.affine;
  const at::Tensor& tensor = addend.tensor;
  if (!tensor.is_floating_point() || tensor.scalar_type() != site.norm_dtype || tensor.dim() > affine.rank()) {
    return Decline{Reason::weight_dtype_unsupported, site.node, "the addend is not a tensor of the norm's dtype"};
  }
  if (tensor.device() != affine.scale.device()) return Decline{Reason::devices_differ, site.node, "the addend is elsewhere"};
  if (!at::are_expandable(affine.scale.sizes(), tensor.sizes()) || !at::are_expandable(affine.shift.sizes(), tensor.sizes())) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the addend has another size than the channels"};
  }
  const bool takes_shift = !is_in_branch(site.node);
  at::Tensor folded = affine.scale * tensor.to(at::kDouble);
  if (takes_shift) folded = folded + affine.shift / factor;
  while (folded.dim() > tensor.dim() && folded.size(0) == 1) folded = folded.squeeze(0);
  if (folded.sizes() != tensor.sizes() && tensor.numel() != 1)
    return Decline{Reason::affine_varies_elsewhere, site.node, "the addend varies along other dimensions"};
  const std::string name = attribute_name(site.known.store, addend.leaf);
  Pass pass = to_input(site, takes_shift ? algebra::scale_only(affine) : affine);
  pass.edits.push_back(SetInput{site.node, 1, folded.to(tensor.scalar_type()), addend.leaf, name});
  return pass;
}

// What addend `place` is added to has a convolution of it among its addends. The convolution takes the addend in, and the affine is wanted of
// the rest alone: a value that the convolution reads, too, could not take it.
std::optional<Pass> without_identity(const Site& site, size_t place) {
  jit::Node* sum = site.node;
  jit::Value* value = sum->input(place);
  jit::Value* rest = sum->input(1 - place);
  const Memory& memory = site.known.store.memory();
  // What is left takes the place of the sum, and so has its order in memory, and is memory that may be written to.
  if (*weight_in_sum(sum, 1 - place) != 1 || !is_only_reader(sum, rest) || !memory.is_private(rest)) return std::nullopt;
  const std::vector<Addend> beside = addends_of(rest, 1);
  const auto lies_in_order = [&](const Addend& addend) {
    return lies_as_sum(addend.value, value, /*input_is_first=*/place == 0, site.known.store);
  };
  const auto reader = only_reader(sum->output());
  const bool laid_out_anew = reader && is_normalizing(reader->user);  // whatever the order of the sum
  if (!(laid_out_anew || is_dense(value)) || !std::all_of(beside.begin(), beside.end(), lies_in_order)) return std::nullopt;
  const at::Tensor ones = at::ones_like(site.affine.scale + site.affine.shift);
  for (const Addend& addend : beside) {
    jit::Node* conv = addend.value->node();
    if (!is_forward_conv(conv) || conv->input(0) != value || !memory.read_the_same(value, conv, sum)) continue;
    const algebra::Affine times{ones * (*weight_in_sum(sum, place) / addend.weight), at::zeros_like(ones)};
    const Answer answer = absorb_identity({conv, 0, times, site.norm_dtype, site.from_batch_norm, site.known, site.planned});
    const auto* absorb = std::get_if<Absorb>(&answer);
    if (absorb == nullptr) continue;
    Pass pass{{{rest, site.affine, Way::backward}}, absorb->edits};
    pass.edits.push_back(Replace{sum, rest});
    return pass;
  }
  return std::nullopt;
}

// Whether a layer makes addend `place`, which fits the affine, for this sum alone, and takes `affine` in.
bool is_taken(const Site& site, size_t place, algebra::Affine affine) {
  const jit::Node* reader = site.node;
  const jit::Value* value = site.node->input(place);
  while (is_only_reader(reader, value)) {
    jit::Node* producer = const_cast<jit::Node*>(value->node());
    const Rule* rule = rule_for(producer);
    if (rule == nullptr || rule->backward == nullptr) return false;
    const Answer answer =
        rule->backward({producer, value->offset(), affine, site.norm_dtype, site.from_batch_norm, site.known, site.planned});
    if (std::holds_alternative<Absorb>(answer)) return true;
    const auto* pass = std::get_if<Pass>(&answer);
    if (pass == nullptr || !keeps_sizes(producer) || pass->moves.size() != 1 || !pass->edits.empty()) return false;
    reader = producer;
    value = pass->moves[0].value;
    affine = pass->moves[0].affine;
  }
  return false;
}

// The affine of addend `place` that adds `shift` to the sum, where it is scaled by `scale`.
algebra::Affine with_shift_in_sum(const Site& site, size_t place, const at::Tensor& scale, const at::Tensor& shift) {
  return {scale, shift / *weight_in_sum(site.node, place)};
}

}  // namespace

Answer add_backward(const Site& site) {
  jit::Node* node = site.node;
  const auto factor = weight_in_sum(node, 1);
  if (!factor || *factor == 0) return Decline{Reason::operand_not_constant, node, "alpha is not a constant"};
  if (const auto number = number_added(site)) {
    Pass pass = to_input(site, {site.affine.scale, site.affine.shift + site.affine.scale * (*number * *factor)});
    pass.edits.push_back(without_number(site));
    return pass;
  }
  if (node->input(1)->type()->kind() != c10::TypeKind::TensorType) {
    return Decline{Reason::operand_not_constant, node, "the addend is computed while the module runs"};
  }
  const auto addend = planned_operand(site, 1);
  if (addend && addend->tensor.defined() && addend->views.empty()) return into_static_addend(site, *addend, *factor);
  if (const auto zeros = place_of_zeros(site)) {
    jit::Value* other = node->input(1 - *zeros);
    if (site.known.extents.fit(other, site.affine)) return Pass{{{other, site.affine, Way::backward}}};
    return Decline{Reason::sizes_unknown, node, "an addend may be broadcast"};
  }
  if (node->input(0) == node->input(1)) {
    return Decline{Reason::value_has_other_readers, node, "it adds the value to itself"};
  }
  for (const size_t place : {1, 0}) {
    if (const auto pass = without_identity(site, place)) return *pass;
  }
  for (const size_t place : {0, 1}) {
    if (!site.known.extents.fit(node->input(place), site.affine)) {
      return Decline{Reason::sizes_unknown, node, "an addend may be broadcast"};
    }
  }
  const algebra::Affine scaled = algebra::scale_only(site.affine);
  const algebra::Affine shifted = with_shift_in_sum(site, 1, site.affine.scale, site.affine.shift);
  const bool second =
      algebra::has_shift(site.affine) && !is_in_branch(node) && !is_taken(site, 0, site.affine) && is_taken(site, 1, shifted);
  return Pass{{{node->input(0), second ? scaled : site.affine, Way::backward},
               {node->input(1), second ? shifted : scaled, Way::backward}}};
}

Answer add_forward(const Site& site) {
  jit::Node* node = site.node;
  const auto factor = weight_in_sum(node, 1);
  if (!factor) return Decline{Reason::operand_not_constant, node, "alpha is not a constant"};
  const at::Tensor share = site.place == 1 ? site.affine.shift * *factor : site.affine.shift;
  if (const auto number = site.place == 0 ? number_added(site) : std::nullopt) {
    Pass pass = to_output(site, {site.affine.scale, site.affine.shift + *number * *factor});
    pass.edits.push_back(without_number(site));
    return pass;
  }
  if (node->input(1)->type()->kind() != c10::TypeKind::TensorType) {
    return Decline{Reason::operand_not_constant, node, "the addend is computed while the module runs"};
  }
  jit::Value* other = node->input(1 - site.place);
  const bool divides = !algebra::has_zero_scale(site.affine) && other != node->input(site.place);
  if (divides && *factor != 0 && algebra::has_shift(site.affine)) {
    const at::Tensor inverse = site.affine.scale.reciprocal();
    const algebra::Affine shifted = with_shift_in_sum(site, 1 - site.place, inverse, share * inverse);
    if (is_only_reader(node, other) && site.known.extents.fit(other, shifted) && is_taken(site, 1 - site.place, shifted)) {
      return Pass{{{node->output(), algebra::scale_only(site.affine), Way::forward}, {other, shifted, Way::backward}}};
    }
  }
  Pass pass = to_output(site, {site.affine.scale, share});
  if (!algebra::has_scale(site.affine) || place_of_zeros(site) == 1 - site.place) {
    const auto constant = site.known.store.read(other);
    const int64_t most = site.affine.rank();
    if (constant && constant->defined() ? constant->dim() <= most : site.known.ranks.is_at_most(other, most)) return pass;
    return Decline{Reason::rank_unknown, node, "the other addend may have more dimensions"};
  }
  if (algebra::has_zero_scale(site.affine)) {
    return Decline{Reason::scale_not_invertible, node, "the other addend can't be divided by a scale of 0"};
  }
  if (!site.known.extents.fit(other, site.affine) || other == node->input(site.place)) {
    return Decline{Reason::sizes_unknown, node, "an addend may be broadcast"};
  }
  pass.moves.push_back({other, algebra::inverse(algebra::scale_only(site.affine)), Way::backward});
  return pass;
}

}  // namespace bnfold
