// Adding and dropping a dimension of size 1 lets an affine pass that is constant along it.
//
//   before   x [N,C,1,1] --> squeeze(3) --> norm --> y          after   norm of x --> squeeze(3) --> y, and the other way round
//
// Conditions  the dimensions are constants                                 operand_not_constant
//             the affine is constant along them                            affine_varies_elsewhere
//             squeeze: they really have size 1, as far as is known or as its
//             output has so many dimensions fewer; where it is told none, it is
//             known of each dimension whether it has                       sizes_unknown
#include <algorithm>

#include "graph/constants.h"
#include "knowledge/extents.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether it drops whatever has size 1.
bool drops_all(const jit::Node* node) {
  return node->kind() == jit::aten::squeeze && !has_argument(node, "dim");
}

// The dimensions, counted in the longer one of input and output, whose rank is `rank`, in order.
std::optional<std::vector<int64_t>> dimensions_of(const jit::Node* node, int64_t rank) {
  auto dimensions = has_argument(node, "dim") ? constant_dimensions(node->namedInput("dim"), rank) : std::nullopt;
  if (dimensions) std::sort(dimensions->begin(), dimensions->end());
  return dimensions;
}

// How many dimensions the node adds or drops.
int64_t number_of_dimensions(const jit::Node* node) {
  const auto list = has_argument(node, "dim") ? constant_ints(node->namedInput("dim")) : std::nullopt;
  return list ? static_cast<int64_t>(list->size()) : 1;
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "its dimension is not a constant that fits the value"};
}

Answer dropped(const Site& site, const std::vector<int64_t>& dimensions, Way way) {
  algebra::Affine affine = site.affine;
  for (auto dimension = dimensions.rbegin(); dimension != dimensions.rend(); ++dimension) {
    if (affine.size_along(*dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels lie along the dimension that goes"};
    }
    affine = algebra::without_dimension(affine, *dimension);
  }
  return way == Way::forward ? to_output(site, affine) : to_input(site, affine);
}

algebra::Affine with_dimensions(algebra::Affine affine, const std::vector<int64_t>& dimensions) {
  for (const int64_t dimension : dimensions) affine = algebra::with_dimension(affine, dimension);
  return affine;
}

// Whether the output of squeeze has `number` dimensions fewer than its input. What is the batch by custom may have size 1 in an example alone.
bool is_shorter_by(const Site& site, const std::vector<int64_t>& dimensions, int64_t rank) {
  if (dimensions.empty() || dimensions.front() == 0) return false;
  return site.known.ranks.of(site.node->output()) == rank - static_cast<int64_t>(dimensions.size());
}

// squeeze keeps a dimension that has another size than 1.
std::optional<Decline> why_not_dropped(const Site& site, const std::vector<int64_t>& dimensions, int64_t rank) {
  const bool drops = std::all_of(dimensions.begin(), dimensions.end(), [&site](int64_t dimension) {
    return site.known.extents.of(site.node->input(0), dimension) == 1;
  });
  if (drops || is_shorter_by(site, dimensions, rank)) return std::nullopt;
  return Decline{Reason::sizes_unknown, site.node, "the dimension may have another size than 1"};
}

// The dimensions of size 1 of a value of `rank` dimensions; nothing where one has a size that is not known.
std::optional<std::vector<int64_t>> dimensions_of_one(const Site& site, int64_t rank) {
  std::vector<int64_t> dimensions;
  for (int64_t dimension = 0; dimension < rank; ++dimension) {
    const auto size = site.known.extents.of(site.node->input(0), dimension);
    if (!size) return std::nullopt;
    if (*size == 1) dimensions.push_back(dimension);
  }
  return dimensions;
}

Decline sizes_not_known(const Site& site) {
  return {Reason::sizes_unknown, site.node,
          "which dimensions have size 1, a batch of one too, is not known; squeeze(dim) tells it"};
}

}  // namespace

Answer unsqueeze_forward(const Site& site) {
  const auto dimensions = dimensions_of(site.node, site.affine.rank() + 1);
  if (!dimensions) return not_constant(site);
  return to_output(site, with_dimensions(site.affine, *dimensions));
}

Answer unsqueeze_backward(const Site& site) {
  const auto dimensions = dimensions_of(site.node, site.affine.rank());
  if (!dimensions) return not_constant(site);
  return dropped(site, *dimensions, Way::backward);
}

Answer squeeze_forward(const Site& site) {
  const int64_t rank = site.affine.rank();
  if (drops_all(site.node)) {
    const auto ones = dimensions_of_one(site, rank);
    if (!ones) return sizes_not_known(site);
    return dropped(site, *ones, Way::forward);
  }
  const auto dimensions = dimensions_of(site.node, rank);
  if (!dimensions) return not_constant(site);
  if (const auto decline = why_not_dropped(site, *dimensions, rank)) return *decline;
  return dropped(site, *dimensions, Way::forward);
}

Answer squeeze_backward(const Site& site) {
  if (drops_all(site.node)) {
    const auto rank = site.known.ranks.of(site.node->input(0));
    const auto ones = rank ? dimensions_of_one(site, *rank) : std::nullopt;
    if (!ones || *rank - static_cast<int64_t>(ones->size()) != site.affine.rank()) return sizes_not_known(site);
    return to_input(site, with_dimensions(site.affine, *ones));
  }
  const int64_t rank = site.affine.rank() + number_of_dimensions(site.node);
  const auto dimensions = dimensions_of(site.node, rank);
  if (!dimensions) return not_constant(site);
  if (const auto decline = why_not_dropped(site, *dimensions, rank)) return *decline;
  return to_input(site, with_dimensions(site.affine, *dimensions));
}

}  // namespace bnfold
