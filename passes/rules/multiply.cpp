// A product with a gate that is computed elsewhere passes the scale, one with what is the same in every run the shift, too.
//
//   before   (u * g) --> norm(scale, 0) --> y                 after   norm(scale, 0) of u, * g --> y
//            norm(scale, 0) of u, * g --> y                   after   (u * g) --> norm(scale, 0) --> y
//            (u * c) --> norm(scale, shift) --> y             after   norm(scale, shift/c) of u, * c --> y
//            norm(scale, shift) of u, * c --> y               after   (u * c) --> norm(scale, c*shift) --> y
//
// Formula     scale * (u * g) = (scale * u) * g, and (scale*u + shift) * c = scale * (u*c) + shift*c. A quotient u / g is a product with 1/g,
//             neg one with -1. c is a number, or a static tensor. Behind two computed factors the scale goes to one that takes it, and
//             rather to one that nobody else reads.
// Conditions  the value does not divide                                    operator_not_affine
//             a shift: a number is a constant, and finite, as 1/c is
//             behind it                                                    operand_not_constant
//             a static tensor is on the norm's device                      devices_differ
//             and the other factor no computed one                         shift_not_passable
//             before it: the factor has no more dimensions than the value  rank_unknown
//             behind it: the factors are two values                        value_has_other_readers
//             the value that takes the affine is not broadcast             sizes_unknown
#include <unordered_set>

#include "graph/constants.h"
#include "graph/operators.h"
#include "graph/memory.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

Answer multiply_backward(const Site& site);

namespace {

bool is_quotient(const jit::Node* node) {
  return is_one_of(node, {"div", "div_"});
}

bool is_negation(const jit::Node* node) {
  return is_one_of(node, {"neg", "neg_"});
}

bool is_tensor(const jit::Value* value) {
  return value->type()->kind() == c10::TypeKind::TensorType;
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

// Whether what computes `value` takes the scale or hands it on. Through products it is followed to their factors, of which it is enough that
// one does; where there are many, the planner finds out.
bool takes_scale(const Site& site, jit::Value* value) {
  constexpr size_t kMany = 64;
  std::unordered_set<const jit::Value*> seen;
  std::vector<jit::Value*> pending = {value};
  while (!pending.empty() && seen.size() < kMany) {
    jit::Value* factor = pending.back();
    pending.pop_back();
    if (!seen.insert(factor).second || !site.known.extents.fit(factor, site.affine)) continue;
    jit::Node* producer = factor->node();
    const Rule* rule = rule_for(producer);
    if (rule == nullptr || rule->backward == nullptr) continue;
    if (rule->backward == multiply_backward) {
      const size_t operands = is_quotient(producer) ? 1 : producer->inputs().size();
      for (size_t i = 0; i < operands; ++i) {
        if (is_tensor(producer->input(i))) pending.push_back(producer->input(i));
      }
      continue;
    }
    const Site behind{producer, factor->offset(), site.affine, site.norm_dtype, site.from_batch_norm, site.known, site.planned};
    if (!std::holds_alternative<Decline>(rule->backward(behind))) return true;
  }
  return !pending.empty();
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
  std::vector<jit::Value*> takers;
  for (size_t place = 0; place < (is_quotient(node) ? 1 : 2); ++place) {
    jit::Value* value = node->input(place);
    if (site.known.extents.fit(value, site.affine) && takes_scale(site, value)) takers.push_back(value);
  }
  if (takers.empty()) {
    return Decline{Reason::sizes_unknown, node, "neither factor is known to have the size of the product and to take a scale"};
  }
  const bool rather_the_other = takers.size() == 2 && !is_only_reader(node, takers[0]) && is_only_reader(node, takers[1]);
  return Pass{{{takers[rather_the_other ? 1 : 0], site.affine, Way::backward}}};
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
