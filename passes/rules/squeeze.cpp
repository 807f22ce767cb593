// Adding and dropping a dimension of size 1 lets an affine pass that is constant along it.
//
//   before   x [N,C,1,1] --> squeeze(3) --> norm --> y          after   norm of x --> squeeze(3) --> y, and the other way round
//
// Conditions  the dimension is a constant                                  operand_not_constant
//             the affine is constant along it                              affine_varies_elsewhere
//             squeeze: the dimension really has size 1                     sizes_unknown
#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The dimension, counted in the longer one of input and output, whose rank is `rank`.
std::optional<int64_t> dimension_of(const jit::Node* node, int64_t rank) {
  return has_argument(node, "dim") ? constant_dimension(node->namedInput("dim"), rank) : std::nullopt;
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "its dimension is not a constant that fits the value"};
}

Answer dropped(const Site& site, int64_t dimension, Way way) {
  if (site.affine.size_along(dimension) != 1) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels lie along the dimension that goes"};
  }
  const algebra::Affine affine = algebra::without_dimension(site.affine, dimension);
  return way == Way::forward ? to_output(site, affine) : to_input(site, affine);
}

// squeeze keeps a dimension that has another size than 1.
bool drops_for_sure(const Site& site, int64_t dimension) {
  return site.known.extents.of(site.node->input(0), dimension) == 1;
}

}  // namespace

Answer unsqueeze_forward(const Site& site) {
  const auto dimension = dimension_of(site.node, site.affine.rank() + 1);
  if (!dimension) return not_constant(site);
  return to_output(site, algebra::with_dimension(site.affine, *dimension));
}

Answer unsqueeze_backward(const Site& site) {
  const auto dimension = dimension_of(site.node, site.affine.rank());
  if (!dimension) return not_constant(site);
  return dropped(site, *dimension, Way::backward);
}

Answer squeeze_forward(const Site& site) {
  const auto dimension = dimension_of(site.node, site.affine.rank());
  if (!dimension) return not_constant(site);
  if (!drops_for_sure(site, *dimension))
    return Decline{Reason::sizes_unknown, site.node, "the dimension may have another size than 1"};
  return dropped(site, *dimension, Way::forward);
}

Answer squeeze_backward(const Site& site) {
  const auto dimension = dimension_of(site.node, site.affine.rank() + 1);
  if (!dimension) return not_constant(site);
  if (!drops_for_sure(site, *dimension))
    return Decline{Reason::sizes_unknown, site.node, "the dimension may have another size than 1"};
  return to_input(site, algebra::with_dimension(site.affine, *dimension));
}

}  // namespace bnfold
