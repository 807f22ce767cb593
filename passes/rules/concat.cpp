// A concatenation gives each of its parts a slice of the affine behind it, and joins the affine of one part with nothing for the others.
//
//   before   cat(u, v) --> norm(scale, shift) --> y          after   cat(norm(scale_u, shift_u) of u, norm(scale_v, shift_v) of v) --> y
//            cat(norm(scale, shift) of u, v) --> y           after   cat(u, v) --> norm([scale, 1], [shift, 0]) --> y
//            stack([u, v]) --> norm(scale, shift) --> y      after   stack([norm(scale, shift) of u, norm(scale, shift) of v]) --> y
//
// Conditions  the list is made right there, of known parts                 list_not_visible
//             the dimension is a constant                                  operand_not_constant
//             and one of a value of this rank                              rank_unknown
//             the affine is constant along it, or the sizes of the parts
//             are known                                                    sizes_unknown
//             before it: the sizes of all parts are known, or those on one
//             side of the part and, by a layer behind, that of all         sizes_unknown
//             behind it: the parts have no more channels than the affine   channels_differ
//             stack: the affine is constant along the new dimension        affine_varies_elsewhere
#include <fmt/format.h>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

struct Parts {
  std::vector<jit::Value*> values;
  std::vector<int64_t> sizes;
  int64_t dimension;
};

// The sizes of the parts; one that is not known is what the others leave of `total`.
std::optional<std::vector<int64_t>> sizes_of(const Site& site, at::ArrayRef<jit::Value*> values, int64_t dimension,
                                             int64_t total) {
  std::vector<int64_t> sizes;
  int64_t known = 0;
  int64_t unknown = 0;
  for (const jit::Value* value : values) {
    sizes.push_back(site.known.extents.of(value, dimension).value_or(-1));
    (sizes.back() < 0 ? unknown : known) += sizes.back() < 0 ? 1 : sizes.back();
  }
  if (unknown == 1 && total > known) {
    for (int64_t& size : sizes) size = size < 0 ? total - known : size;
    unknown = 0;
  }
  if (unknown != 0) return std::nullopt;
  return sizes;
}

Decline unknown_sizes(const Site& site) {
  return {Reason::sizes_unknown, site.node, "the channels of its parts are not known"};
}

struct List {
  std::vector<jit::Value*> values;
  int64_t dimension;
};

// The values that it joins, in a list that is for it alone; none where that is made elsewhere.
std::vector<jit::Value*> joined_values(const Site& site) {
  jit::Value* list = site.node->input(0);
  if (!items_of_list(list) || list->uses().size() != 1) return {};
  return list->node()->inputs().vec();
}

std::variant<List, Decline> list_of(const Site& site) {
  const std::vector<jit::Value*> values = joined_values(site);
  if (values.empty()) {
    return Decline{Reason::list_not_visible, site.node, "its list is built elsewhere"};
  }
  if (!constant_int(site.node->input(1))) {
    return Decline{Reason::operand_not_constant, site.node, "its dimension is computed while the module runs"};
  }
  const auto dimension = constant_dimension(site.node->input(1), site.affine.rank());
  if (!dimension) {
    return Decline{Reason::rank_unknown, site.node, fmt::format("its dimension does not fit rank {}", site.affine.rank())};
  }
  return List{values, *dimension};
}

std::variant<Parts, Decline> parts_of(const Site& site) {
  const auto read = list_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const auto& [values, dimension] = std::get<List>(read);
  const auto sizes = sizes_of(site, values, dimension, site.affine.size_along(dimension));
  if (!sizes) return unknown_sizes(site);
  return Parts{values, *sizes, dimension};
}

bool is_constant_along_it(const Site& site) {
  const auto dimension = constant_dimension(site.node->input(1), site.affine.rank());
  return dimension && site.affine.size_along(*dimension) == 1;
}

}  // namespace

Answer concat_backward(const Site& site) {
  const std::vector<jit::Value*> values = joined_values(site);
  if (!values.empty() && is_constant_along_it(site)) {
    Pass pass;
    for (jit::Value* value : values) pass.moves.push_back({value, site.affine, Way::backward});
    return pass;
  }
  const auto read = parts_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Parts& parts = std::get<Parts>(read);
  Pass pass;
  int64_t start = 0;
  for (size_t i = 0; i < parts.values.size(); ++i) {
    if (start + parts.sizes[i] > site.affine.size_along(parts.dimension)) {
      return Decline{Reason::channels_differ, site.node, "its parts have more channels than the norm"};
    }
    pass.moves.push_back({parts.values[i], algebra::part(site.affine, parts.dimension, start, parts.sizes[i]), Way::backward});
    start += parts.sizes[i];
  }
  return pass;
}

Answer concat_forward(const Site& site) {
  const auto checked = list_of(site);
  if (const auto* decline = std::get_if<Decline>(&checked)) return *decline;
  const auto& [values, dimension] = std::get<List>(checked);
  int64_t sum = 0;
  int64_t start = 0;
  int64_t unknown_before = 0;
  int64_t unknown = 0;
  int64_t own = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t varying = i == site.place ? site.affine.size_along(dimension) : 1;
    const auto size = varying != 1 ? std::optional<int64_t>(varying) : site.known.extents.of(values[i], dimension);
    if (i == site.place) {
      start = sum;
      unknown_before = unknown;
      own = size.value_or(0);
    }
    unknown += size ? 0 : 1;
    sum += size.value_or(0);
  }
  const auto total = unknown == 0 ? std::optional<int64_t>(sum) : site.known.extents.of(site.node->output(), dimension);
  const bool behind_known = unknown_before == unknown;
  if (!total || own == 0 || (unknown_before != 0 && !behind_known)) return unknown_sizes(site);
  if (unknown_before != 0) start += *total - sum;
  if (start < 0 || start + own > *total) return unknown_sizes(site);
  return to_output(site, algebra::as_part(site.affine, dimension, start, own, *total));
}

Answer stack_backward(const Site& site) {
  const auto read = list_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const auto& [values, dimension] = std::get<List>(read);
  if (site.affine.size_along(dimension) != 1) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels lie along the dimension that it adds"};
  }
  Pass pass;
  for (jit::Value* value : values) {
    pass.moves.push_back({value, algebra::without_dimension(site.affine, dimension), Way::backward});
  }
  return pass;
}

}  // namespace bnfold
