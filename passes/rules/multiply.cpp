// A product with a gate that is computed elsewhere, or with a number, passes the scale.
//
//   before   (u * g) --> norm(scale, 0) --> y          after   norm(scale, 0) of u, * g --> y
//            norm(scale, 0) of u, * g --> y            after   (u * g) --> norm(scale, 0) --> y
//
// Formula     scale * (u * g) = (scale * u) * g. A shift passes only a number c: (scale*u + shift) * c = scale * (u*c) + shift*c.
// Conditions  a shift of 0                                                 shift_not_passable
//             behind it: the number differs from 0                         operand_not_constant
//             the value that takes the scale is not broadcast              sizes_unknown
//             behind it: the factors are two values                        value_has_other_readers
#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether what computes `value` takes the affine or hands it on.
bool takes_affine(const Site& site, const jit::Value* value) {
  jit::Node* producer = const_cast<jit::Node*>(value->node());
  const Rule* rule = rule_for(producer);
  if (rule == nullptr || rule->backward == nullptr) return false;
  const Site behind{producer, value->offset(), site.affine, site.norm_dtype, site.from_batch_norm, site.known, site.planned};
  return !std::holds_alternative<Decline>(rule->backward(behind));
}

bool is_number(const jit::Value* value) {
  return value->type()->kind() != c10::TypeKind::TensorType;
}

}  // namespace

Answer multiply_backward(const Site& site) {
  jit::Node* node = site.node;
  if (is_number(node->input(1))) {
    const auto number = constant_number(node->input(1));
    if (!number || *number == 0) return Decline{Reason::operand_not_constant, node, "the factor is not a constant other than 0"};
    return to_input(site, {site.affine.scale, site.affine.shift / *number});
  }
  if (algebra::has_shift(site.affine))
    return Decline{Reason::shift_not_passable, node, "a shift would be multiplied by the gate"};
  if (node->input(0) == node->input(1)) {
    return Decline{Reason::value_has_other_readers, node, "it multiplies the value by itself"};
  }
  for (const size_t place : {0, 1}) {
    if (!site.known.extents.fit(node->input(place), site.affine) || !takes_affine(site, node->input(place))) continue;
    return Pass{{{node->input(place), site.affine, Way::backward}}};
  }
  return Decline{Reason::sizes_unknown, node, "neither factor is known to have the size of the product and to take a scale"};
}

Answer multiply_forward(const Site& site) {
  jit::Node* node = site.node;
  if (is_number(node->input(1))) {
    const auto number = constant_number(node->input(1));
    if (!number) return Decline{Reason::operand_not_constant, node, "the factor is computed while the module runs"};
    return to_output(site, {site.affine.scale, site.affine.shift * *number});
  }
  if (algebra::has_shift(site.affine))
    return Decline{Reason::shift_not_passable, node, "a shift would be multiplied by the gate"};
  if (!site.known.ranks.is_at_most(node->input(1 - site.place), site.affine.rank())) {
    return Decline{Reason::rank_unknown, node, "the other factor may have another number of dimensions"};
  }
  return to_output(site, site.affine);
}

}  // namespace bnfold
