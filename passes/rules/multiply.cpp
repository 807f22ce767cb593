// A product with a gate that is computed elsewhere passes the scale, one with what is the same in every run the shift, too.
//
//   before   (u * g) --> norm(scale, 0) --> y                 after   norm(scale, 0) of u, * g --> y
//            norm(scale, 0) of u, * g --> y                   after   (u * g) --> norm(scale, 0) --> y
//            (u * c) --> norm(scale, shift) --> y             after   norm(scale, shift/c) of u, * c --> y
//            norm(scale, shift) of u, * c --> y               after   (u * c) --> norm(scale, c*shift) --> y
//
// Formula     scale * (u * g) = (scale * u) * g, and (scale*u + shift) * c = scale * (u*c) + shift*c. A quotient u / g is a product with 1/g,
//             neg one with -1. c is a number, or a static tensor. Behind two computed factors the scale goes to either, first to one
//             that nobody else reads.
// Conditions  the value does not divide                                    operator_not_affine
//             a shift: a number is a constant, and finite, as 1/c is
//             behind it                                                    operand_not_constant
//             a static tensor is on the norm's device                      devices_differ
//             and the other factor no computed one                         shift_not_passable
//             before it: the factor has no more dimensions than the value  rank_unknown
//             behind it: the factors are two values                        value_has_other_readers
//             the value that takes the affine is not broadcast             sizes_unknown
#include <algorithm>

#include "graph/constants.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_quotient(const jit::Node* node) {
  return is_one_of(node, {"div", "div_"});
}

bool is_negation(const jit::Node* node) {
  return is_one_of(node, {"neg", "neg_"});
}

// By what the value in input `place` is multiplied, in double, where that is the same in every run. A trace makes a tensor without dimensions of
// a number.
std::optional<at::Tensor> static_factor(const Site& site, size_t place) {
  const jit::Node* node = site.node;
  if (is_negation(node)) return at::scalar_tensor(-1, at::kDouble);
  if (is_quotient(node) && place == 1) return std::nullopt;
  at::Tensor factor;
  if (is_tensor(node->input(1 - place))) {
    const auto operand = planned_operand(site, 1 - place);
    if (!operand || !operand->views.empty() || !operand->tensor.defined()) return std::nullopt;
    if (operand->tensor.is_complex() || operand->tensor.layout() != at::kStrided || operand->tensor.is_meta())
      return std::nullopt;
    factor = operand->tensor.to(at::kDouble);
    if (factor.dim() == 0) factor = at::scalar_tensor(factor.item<double>(), at::kDouble);  // beside tensors of every device
  } else {
    const auto number = constant_number(node->input(1 - place));
    if (!number) return std::nullopt;
    factor = at::scalar_tensor(*number, at::kDouble);
  }
  return is_quotient(node) ? factor.reciprocal() : factor;
}

// What the affine becomes where `times`, the factor or its inverse, is multiplied into its shift: both are finite, and it broadcasts.
std::variant<algebra::Affine, Decline> with_shift_times(const Site& site, const at::Tensor& factor, const at::Tensor& times) {
  const algebra::Affine& affine = site.affine;
  if (!algebra::has_shift(affine)) return affine;
  if (!factor.isfinite().logical_and(times.isfinite()).all().item<bool>()) {
    return Decline{Reason::operand_not_constant, site.node, "the factor is not a finite constant other than 0"};
  }
  if (times.dim() > 0 && times.device() != affine.shift.device()) {
    return Decline{Reason::devices_differ, site.node, "the factor is elsewhere"};
  }
  if (times.dim() > affine.rank() || !at::are_expandable(affine.shift.sizes(), times.sizes())) {
    return Decline{Reason::sizes_unknown, site.node, "the factor has another size than the channels"};
  }
  const at::Tensor shift = affine.shift * times;
  const std::vector<at::Tensor> both = at::broadcast_tensors({affine.scale, shift});
  return algebra::Affine{both[0], both[1]};
}

Answer behind_static_factor(const Site& site, size_t place, const at::Tensor& factor) {
  jit::Value* value = site.node->input(place);
  const auto affine = with_shift_times(site, factor, factor.reciprocal());
  if (const auto* decline = std::get_if<Decline>(&affine)) return *decline;
  const auto& before = std::get<algebra::Affine>(affine);
  if (factor.dim() > 0 && !site.known.extents.fit(value, before)) {
    return Decline{Reason::sizes_unknown, site.node, "the value may be broadcast to the factor"};
  }
  return Pass{{{value, before, Way::backward}}};
}

Answer before_static_factor(const Site& site, const at::Tensor& factor) {
  if (factor.dim() > site.affine.rank()) {
    return Decline{Reason::rank_unknown, site.node, "the factor has more dimensions than the value"};
  }
  const auto affine = with_shift_times(site, factor, factor);
  if (const auto* decline = std::get_if<Decline>(&affine)) return *decline;
  return to_output(site, std::get<algebra::Affine>(affine));
}

}  // namespace

Answer multiply_backward(const Site& site) {
  jit::Node* node = site.node;
  for (const size_t place : {0, 1}) {
    if (place >= node->inputs().size() || !is_tensor(node->input(place))) continue;
    if (const auto factor = static_factor(site, place)) return behind_static_factor(site, place, *factor);
  }
  if (!is_tensor(node->input(1))) {
    return Decline{Reason::operand_not_constant, node, "the factor is computed while the module runs"};
  }
  if (algebra::has_shift(site.affine))
    return Decline{Reason::shift_not_passable, node, "a shift would be multiplied by the gate"};
  if (node->input(0) == node->input(1)) {
    return Decline{Reason::value_has_other_readers, node, "it multiplies the value by itself"};
  }
  std::vector<jit::Value*> factors;
  Choice choice;
  for (size_t place = 0; place < (is_quotient(node) ? 1 : 2); ++place) {
    if (site.known.extents.fit(node->input(place), site.affine)) {
      factors.push_back(node->input(place));
    } else {
      choice.otherwise = Decline{Reason::sizes_unknown, node, "the value may be broadcast to the size of the other factor"};
    }
  }
  if (factors.empty()) return *choice.otherwise;
  std::stable_partition(factors.begin(), factors.end(),
                        [node](const jit::Value* factor) { return is_only_reader(node, factor); });
  for (jit::Value* factor : factors) choice.ways.push_back({{{factor, site.affine, Way::backward}}});
  return choice;
}

Answer multiply_forward(const Site& site) {
  jit::Node* node = site.node;
  if (is_quotient(node) && site.place == 1) {
    return Decline{Reason::operator_not_affine, node, "the normalized value divides"};
  }
  if (const auto factor = static_factor(site, site.place)) return before_static_factor(site, *factor);
  if (!is_tensor(node->input(1 - site.place))) {
    return Decline{Reason::operand_not_constant, node, "the factor is computed while the module runs"};
  }
  if (algebra::has_shift(site.affine))
    return Decline{Reason::shift_not_passable, node, "a shift would be multiplied by the gate"};
  if (!site.known.ranks.is_at_most(node->input(1 - site.place), site.affine.rank())) {
    return Decline{Reason::rank_unknown, node, "the other factor may have another number of dimensions"};
  }
  return to_output(site, site.affine);
}

}  // namespace bnfold
