// A cast to the dtype that the value has lets every affine pass, and forward one to a wider dtype does, too.
//
//   before   x --> to(x.dtype) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> to(x.dtype) --> y
//            x --> norm(scale, shift) --> to(float) --> y            after   x --> to(float) --> norm(scale, shift) --> y
//
// Conditions  behind it: the dtype stays                                   dtypes_differ
//             before it: the dtype stays, or the new one holds every
//             number of the old one                                        dtypes_differ
// Behind a wider one the layer that takes the affine would round what the norm made in the wider dtype.
#include "knowledge/dtypes.h"
#include "rules/rule.h"

namespace bnfold {

Answer cast_backward(const Site& site) {
  const Cast cast = cast_of(site.node, site.known.store);
  if (cast == Cast::same) return to_input(site, site.affine);
  return Decline{
      Reason::dtypes_differ, site.node,
      cast == Cast::wider ? "the layer before it rounds to a narrower dtype" : "nothing tells that it keeps the dtype"};
}

Answer cast_forward(const Site& site) {
  if (cast_of(site.node, site.known.store) != Cast::unknown) return to_output(site, site.affine);
  return Decline{Reason::dtypes_differ, site.node, "nothing tells that it keeps the dtype, or makes it wider"};
}

}  // namespace bnfold
