// A view with other sizes lets an affine pass whose channels it keeps, splits, or joins with dimensions of known size.
//
//   before   x [N,C,H,W] --> view [N,g,C/g,H,W] --> norm --> y        after   norm of x --> view --> y, and the other way round
//
// Formula     The affine is viewed as the value is: a dimension of C channels becomes dimensions whose product is C, or the other way.
// Conditions  before it: the value is its input, not what tells the sizes                                          operand_not_constant
//             the sizes before and after can be matched, from the front: equal dimensions first, then the channels' dimension, against
//             dimensions of known size, then the others, along which the affine is constant                        sizes_unknown
#include <algorithm>
#include <string_view>

#include "graph/constants.h"
#include "graph/operators.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A size: a number, or the size of `value` along `dimension`, or what is left (-1).
struct Extent {
  std::optional<int64_t> number;
  const jit::Value* value = nullptr;
  int64_t dimension = 0;
};

bool same(const Extent& a, const Extent& b) {
  if (a.number && b.number) return *a.number == *b.number && *a.number != -1;
  return a.value != nullptr && a.value == b.value && a.dimension == b.dimension;
}

Extent extent_of(const jit::Value* element, const Site& site);

// The size of `value` along `dimension`: a number, or where it comes from.
Extent origin(const jit::Value* value, int64_t dimension, const Site& site) {
  while (true) {
    if (const auto number = site.known.extents.of(value, dimension)) return {number};
    const jit::Node* node = value->node();
    const std::string_view operation = node->kind().is_aten() ? node->kind().toUnqualString() : "";
    const bool reorders = operation == "permute" || operation == "transpose" || operation == "t";
    const auto batched = batched_rank(node);
    const bool keeps_batch = keeps_channels(node) || (batched && site.known.ranks.of(value) == batched);
    if (operation == "view" || operation == "reshape") {
      const jit::Node* list = node->input(1)->node();
      if (list->kind() != jit::prim::ListConstruct || dimension >= static_cast<int64_t>(list->inputs().size())) break;
      const Extent extent = extent_of(list->inputs()[dimension], site);
      return extent.number == -1 ? Extent{std::nullopt, value, dimension} : extent;
    }
    if (reorders) {
      const auto before = dimension_before(node, dimension, site.known.ranks.of(value));
      if (!before) break;
      dimension = *before;
    } else if (!keeps_sizes(node) && (!keeps_batch || dimension != 0)) {
      break;
    }
    value = node->input(0);
  }
  return {std::nullopt, value, dimension};
}

// One element of the list of sizes that view is given.
Extent extent_of(const jit::Value* element, const Site& site) {
  if (const auto number = constant_int(element)) return {number};
  const jit::Node* node = element->node();
  const jit::Value* source = nullptr;
  std::optional<int64_t> dimension;
  if (node->kind() == jit::aten::size && node->inputs().size() == 2) {
    source = node->input(0);
    dimension = constant_int(node->input(1));
  } else if (node->kind() == jit::aten::__getitem__ && node->input(0)->node()->kind() == jit::aten::size) {
    source = node->input(0)->node()->input(0);
    dimension = constant_int(node->input(1));
  } else if (node->kind() == jit::prim::ListUnpack && node->input()->node()->kind() == jit::aten::size) {
    source = node->input()->node()->input(0);
    dimension = static_cast<int64_t>(element->offset());
  } else if (node->kind() == jit::aten::floordiv || node->kind() == jit::aten::div) {
    const Extent whole = extent_of(node->input(0), site);
    const auto divisor = constant_int(node->input(1));
    if (whole.number && divisor && *divisor > 0 && *whole.number % *divisor == 0) return {*whole.number / *divisor};
    return {};
  } else if (node->kind() == jit::aten::mul) {
    const Extent one = extent_of(node->input(0), site);
    const Extent other = extent_of(node->input(1), site);
    if (one.number && other.number) return {*one.number * *other.number};
    return {};
  } else if (node->kind() == jit::aten::Int || node->kind().toQualString() == std::string_view("prim::NumToTensor")) {
    return extent_of(node->input(0), site);
  }
  if (source == nullptr || !dimension) return {};
  const auto rank = site.known.ranks.of(source);
  if (*dimension < 0 && !rank) return {};
  return origin(source, *dimension < 0 ? *dimension + *rank : *dimension, site);
}

std::vector<Extent> extents_of_value(const jit::Value* value, int64_t rank, const Site& site) {
  std::vector<Extent> extents;
  extents.reserve(rank);
  for (int64_t dimension = 0; dimension < rank; ++dimension) {
    extents.push_back(origin(value, dimension, site));
  }
  return extents;
}

// The first dimension along which the affine varies, and how many there are up to the last one; none where it is constant.
struct Range {
  int64_t first = 0;
  int64_t count = 0;
};

Range varying_dimensions(const algebra::Affine& affine) {
  Range range;
  for (int64_t dimension = 0; dimension < affine.rank(); ++dimension) {
    if (affine.size_along(dimension) == 1) continue;
    if (range.count == 0) range.first = dimension;
    range.count = dimension - range.first + 1;
  }
  return range;
}

std::optional<int64_t> product(std::vector<Extent>::const_iterator begin, std::vector<Extent>::const_iterator end) {
  int64_t result = 1;
  for (; begin != end; ++begin) {
    if (!begin->number || *begin->number < 0) return std::nullopt;
    result *= *begin->number;
  }
  return result;
}

// What -1 in `sizes` stands for, in a view of a value of sizes `other`, where the sizes from `channel` on describe the same elements.
void fill_open_size(std::vector<Extent>& sizes, const std::vector<Extent>& other, int64_t channel) {
  const auto open = std::find_if(sizes.begin(), sizes.end(), [](const Extent& extent) { return extent.number == -1; });
  if (open == sizes.end() || channel >= static_cast<int64_t>(std::min(sizes.size(), other.size()))) return;
  auto end = sizes.end();
  auto other_end = other.end();
  while (end - 1 != open && end - 1 > sizes.begin() + channel && other_end - 1 > other.begin() + channel &&
         same(*(end - 1), *(other_end - 1))) {
    --end;
    --other_end;
  }
  const auto whole = product(other.begin() + channel, other_end);
  if (!whole) return;
  if (open - sizes.begin() < channel) {
    if (product(sizes.begin() + channel, end) == whole) *open = other[open - sizes.begin()];
    return;
  }
  const auto before = product(sizes.begin() + channel, open);
  const auto behind = product(open + 1, end);
  if (before && behind && *before * *behind > 0) open->number = *whole / (*before * *behind);
}

// The affine behind a view from sizes `before` to sizes `after`.
std::optional<algebra::Affine> behind_view(const algebra::Affine& affine, const std::vector<Extent>& before,
                                           const std::vector<Extent>& after) {
  const Range varying = varying_dimensions(affine);
  const auto rank_after = static_cast<int64_t>(after.size());
  if (varying.count == 0) return algebra::broadcast_to_rank({affine.scale.flatten(), affine.shift.flatten()}, rank_after);
  for (int64_t dimension = 0; dimension < varying.first; ++dimension) {
    if (dimension >= rank_after || !same(before[dimension], after[dimension])) return std::nullopt;
  }
  // From here on both describe the same number of elements, the channels first.
  std::vector<int64_t> full(affine.rank(), 1);
  int64_t channels = 1;
  for (int64_t d = varying.first; d < varying.first + varying.count; ++d) {
    const int64_t size = affine.size_along(d);
    const auto known = size != 1 ? std::optional<int64_t>(size) : before[d].number;
    if (!known || *known < 1) return std::nullopt;
    full[d] = *known;
    channels *= *known;
  }
  std::vector<int64_t> shape(rank_after, 1);
  int64_t product = 1;
  for (int64_t d = varying.first; d < rank_after && product < channels && after[d].number && *after[d].number > 0; ++d) {
    shape[d] = *after[d].number;
    product *= shape[d];
  }
  if (product != channels) return std::nullopt;
  return algebra::Affine{affine.scale.expand(full).reshape(shape), affine.shift.expand(full).reshape(shape)};
}

Decline not_matched(const Site& site) {
  return {Reason::sizes_unknown, site.node, "its sizes can't be matched with the norm's channels"};
}

// The sizes that view, reshape or reshape_as is given, in the extents of `input`.
std::optional<std::vector<Extent>> target(const Site& site) {
  const jit::Node* node = site.node;
  std::vector<Extent> sizes;
  if (node->kind() == jit::aten::reshape_as || node->kind() == jit::aten::view_as) {
    const auto rank = site.known.ranks.of(node->input(1));
    if (!rank) return std::nullopt;
    return extents_of_value(node->input(1), *rank, site);
  }
  if (const auto numbers = constant_ints(node->input(1))) {
    for (const int64_t number : *numbers) sizes.push_back({number});
    return sizes;
  }
  if (node->input(1)->node()->kind() != jit::prim::ListConstruct) return std::nullopt;
  for (const jit::Value* element : node->input(1)->node()->inputs()) sizes.push_back(extent_of(element, site));
  return sizes;
}

}  // namespace

Answer reshape_forward(const Site& site) {
  if (site.place != 0) return Decline{Reason::operand_not_constant, site.node, "the normalized value tells its sizes"};
  auto after = target(site);
  if (!after) return not_matched(site);
  const auto before = extents_of_value(site.node->input(0), site.affine.rank(), site);
  fill_open_size(*after, before, varying_dimensions(site.affine).first);
  const auto affine = behind_view(site.affine, before, *after);
  if (!affine) return not_matched(site);
  return to_output(site, *affine);
}

Answer reshape_backward(const Site& site) {
  const auto rank = site.known.ranks.of(site.node->input(0));
  auto after = target(site);
  if (!rank || !after || static_cast<int64_t>(after->size()) != site.affine.rank()) return not_matched(site);
  const auto before = extents_of_value(site.node->input(0), *rank, site);
  fill_open_size(*after, before, varying_dimensions(site.affine).first);
  const auto affine = behind_view(site.affine, *after, before);
  if (!affine) return not_matched(site);
  return to_input(site, *affine);
}

}  // namespace bnfold
