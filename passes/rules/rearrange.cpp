// What takes or turns the rows along some dimensions lets an affine pass that is constant along them; what turns channels turns the affine, too.
//
//   before   x --> index_select(2, index) --> norm --> y          after   norm of x --> index_select(2, index) --> y, and the other way round
//
// Conditions  the dimensions are constants of this rank                    operand_not_constant
//             and the value no index                                       operand_not_constant
//             roll, index_select: the affine is constant along them        affine_varies_elsewhere
#include <algorithm>

#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<std::vector<int64_t>> dimensions_of(const Site& site) {
  const char* name = site.node->kind() == jit::aten::index_select ? "dim" : "dims";
  auto dimensions = constant_dimensions(site.node->namedInput(name), site.affine.rank());
  if (dimensions && dimensions->empty()) return std::nullopt;  // roll takes all of them as one row then
  return dimensions;
}

Answer rearranged(const Site& site, Pass (*pass_on)(const Site&, const algebra::Affine&)) {
  const auto dimensions = site.place == 0 ? dimensions_of(site) : std::nullopt;
  if (!dimensions) return Decline{Reason::operand_not_constant, site.node, "its dimensions are no constants that fit the value"};
  if (site.node->kind() == jit::aten::flip) {
    return pass_on(site, {site.affine.scale.flip(*dimensions), site.affine.shift.flip(*dimensions)});
  }
  const bool varies = std::any_of(dimensions->begin(), dimensions->end(),
                                  [&](int64_t dimension) { return site.affine.size_along(dimension) != 1; });
  if (varies) return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are rearranged"};
  return pass_on(site, site.affine);
}

}  // namespace

Answer rearrange_backward(const Site& site) {
  return rearranged(site, to_input);
}

Answer rearrange_forward(const Site& site) {
  return rearranged(site, to_output);
}

}  // namespace bnfold
