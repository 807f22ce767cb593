// Flattening lets an affine pass where the flattened dimensions are its channels and others of known size, or none of its channels.
//
//   before   x [N,C,H,W] --> flatten(1) --> norm --> y        after   norm of x --> flatten(1) --> y, and the other way round
//
// Formula     The affine is flattened as the value is: channel c of [C,H,W] becomes the channels c*H*W + i, each with its scale and shift.
// Conditions  the dimensions are constants                                              operand_not_constant
//             on: the sizes that are joined with a channel's are known, or all
//             that are not stand on one side of the channels and a layer behind tells
//             their product                                                             sizes_unknown
//             back: the affine is constant along the joined dimension, or the sizes
//             before are known and their product is the number of channels              affine_varies_elsewhere
#include <algorithm>

#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace {

struct Flattened {
  int64_t first;
  int64_t last;
};

std::optional<Flattened> flattened(const Site& site, std::optional<int64_t> rank) {
  const auto first = constant_dimension(site.node->namedInput("start_dim"), rank);
  const auto last = constant_dimension(site.node->namedInput("end_dim"), rank);
  if (!first || !last) return std::nullopt;
  return Flattened{*first, *last};
}

// The sizes that are not known, -1, on one side of the channels are together what the reader of the output needs.
void fill_rest(std::vector<int64_t>& sizes, const Site& site, const Flattened& dimensions) {
  const auto whole = site.known.extents.of(site.node->output(), dimensions.first);
  const auto first = std::find(sizes.begin(), sizes.end(), -1);
  if (!whole || first == sizes.end()) return;
  int64_t known = 1;
  for (auto size = sizes.begin(); size != sizes.end(); ++size) {
    const bool varies = site.affine.size_along(dimensions.first + (size - sizes.begin())) != 1;
    if (varies && size > first && std::find(size, sizes.end(), -1) != sizes.end()) return;
    known *= *size > 0 ? *size : 1;
  }
  if (known <= 0 || *whole % known != 0) return;
  std::replace(first, sizes.end(), int64_t{-1}, int64_t{1});
  *first = *whole / known;
}

}  // namespace

Answer flatten_forward(const Site& site) {
  const int64_t rank = site.affine.rank();
  const auto dimensions = flattened(site, rank);
  if (!dimensions || dimensions->first > dimensions->last) {
    return Decline{Reason::operand_not_constant, site.node, "the flattened dimensions are not constants that fit its input"};
  }
  std::vector<int64_t> sizes;
  bool varies = false;
  for (int64_t d = dimensions->first; d <= dimensions->last; ++d) {
    varies |= site.affine.size_along(d) != 1;
    const int64_t size = site.affine.size_along(d);
    sizes.push_back(size != 1 ? size : site.known.extents.of(site.node->input(0), d).value_or(-1));
  }
  if (!varies) std::fill(sizes.begin(), sizes.end(), 1);
  fill_rest(sizes, site, *dimensions);
  if (std::find(sizes.begin(), sizes.end(), -1) == sizes.end()) {
    return to_output(site, algebra::behind_merge(site.affine, dimensions->first, sizes));
  }
  return Decline{Reason::sizes_unknown, site.node, "the sizes of the dimensions that it joins are not known"};
}

Answer flatten_backward(const Site& site) {
  const auto rank = site.known.ranks.of(site.node->input(0));
  const auto dimensions = flattened(site, rank);
  if (!dimensions || dimensions->first >= site.affine.rank() || dimensions->first > dimensions->last) {
    return Decline{Reason::operand_not_constant, site.node, "the flattened dimensions are not constants that fit its input"};
  }
  if (const auto before = algebra::before_flatten(site.affine, dimensions->first, dimensions->last))
    return to_input(site, *before);
  if (!rank) return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the flattened dimensions"};
  std::vector<int64_t> sizes;
  int64_t product = 1;
  for (int64_t d = dimensions->first; d <= dimensions->last; ++d) {
    sizes.push_back(site.known.extents.of(site.node->input(0), d).value_or(0));
    product *= sizes.back();
  }
  if (product == site.affine.size_along(dimensions->first)) {
    return to_input(site, algebra::behind_split(site.affine, dimensions->first, sizes));
  }
  return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the flattened dimensions"};
}

}  // namespace bnfold
