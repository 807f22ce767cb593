// Nearest and linear interpolation lets an affine pass that is constant over the resized dimensions.
//
//   before   x --> upsample --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> upsample --> y, and the other way round
//
// Formula     Each output is a sum of inputs with weights that sum to 1.
// Conditions  the affine varies along batch and channels only              affine_varies_elsewhere
//             bicubic weights sum to 1 as well, up to rounding.
#include "rules/rule.h"

namespace bnfold {

namespace {

std::optional<Decline> why_not(const Site& site) {
  for (int64_t dimension = 2; dimension < site.affine.rank(); ++dimension) {
    if (site.affine.size_along(dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the resized dimensions"};
    }
  }
  return std::nullopt;
}

}  // namespace

Answer interpolate_backward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_input(site, site.affine);
}

Answer interpolate_forward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_output(site, site.affine);
}

}  // namespace bnfold
