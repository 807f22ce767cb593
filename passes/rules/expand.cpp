// Repeating rows along dimensions of size 1, or along new ones in front, lets an affine pass ahead.
//
//   before   x [N,C,1,1] --> norm --> expand [N,C,H,W] --> conv          after   x --> expand [N,C,H,W] --> norm --> conv
//
// Formula     Where it varies the value has more than one channel, and is not repeated. It is constant along what is new in front.
// Conditions  it is known how many dimensions there are behind it         sizes_unknown
//
// There is no way back: a norm lays out anew what lies in one row of memory, and its readers may view that.
#include "rules/rule.h"

namespace bnfold {

Answer expand_forward(const Site& site) {
  const auto rank = site.known.ranks.of(site.node->output());
  if (!rank) return Decline{Reason::sizes_unknown, site.node, "how many dimensions it makes is not known"};
  algebra::Affine affine = site.affine;
  while (affine.rank() < *rank) affine = algebra::with_dimension(affine, 0);
  return to_output(site, affine);
}

}  // namespace bnfold
