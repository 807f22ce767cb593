// A cast to the dtype that the value has lets every affine pass.
//
//   before   x --> to(x.dtype) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> to(x.dtype) --> y
//            x --> norm(scale, shift) --> to(x.dtype) --> y          after   x --> to(x.dtype) --> norm(scale, shift) --> y
//
// Conditions  the dtype stays                                              dtypes_differ
// Behind a wider one the layer that takes the affine would round what the norm made in the wider dtype. Before a wider one the norm rounds,
// and overflows, where a wider layer would not.
#include "knowledge/dtypes.h"
#include "rules/rule.h"

namespace bnfold {

namespace {

Decline unknown_dtype(const Site& site) {
  return {Reason::dtypes_differ, site.node, "nothing tells that it keeps the dtype"};
}

}  // namespace

Answer cast_backward(const Site& site) {
  return is_cast_to_same(site.node, site.known.store) ? Answer(to_input(site, site.affine)) : Answer(unknown_dtype(site));
}

Answer cast_forward(const Site& site) {
  return is_cast_to_same(site.node, site.known.store) ? Answer(to_output(site, site.affine)) : Answer(unknown_dtype(site));
}

}  // namespace bnfold
