// A concatenation gives each of its parts a slice of the affine behind it, and joins the affine of one part with nothing for the others.
//
//   before   cat(u, v) --> norm(scale, shift) --> y          after   cat(norm(scale_u, shift_u) of u, norm(scale_v, shift_v) of v) --> y
//            cat(norm(scale, shift) of u, v) --> y           after   cat(u, v) --> norm([scale, 1], [shift, 0]) --> y
//
// Conditions  the list is made right there, of known parts                 list_not_visible
//             the dimension is a constant                                  operand_not_constant
//             and one of a value of this rank                              rank_unknown
//             the affine is constant along it, or the sizes of the parts
//             are known                                                    sizes_unknown
//             before it: the sizes of all parts are known                  sizes_unknown
//             behind it: the parts have no more channels than the affine   channels_differ
#include <fmt/format.h>

#include "graph/constants.h"
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

std::variant<Parts, Decline> parts_of(const Site& site, int64_t total) {
  jit::Node* list = site.node->input(0)->node();
  if (list->kind() != jit::prim::ListConstruct || site.node->input(0)->uses().size() != 1) {
    return Decline{Reason::list_not_visible, site.node, "its list is built elsewhere"};
  }
  if (!constant_int(site.node->input(1))) {
    return Decline{Reason::operand_not_constant, site.node, "its dimension is computed while the module runs"};
  }
  const auto dimension = constant_dimension(site.node->input(1), site.affine.rank());
  if (!dimension) {
    return Decline{Reason::rank_unknown, site.node, fmt::format("its dimension does not fit rank {}", site.affine.rank())};
  }
  const auto sizes = sizes_of(site, list->inputs(), *dimension, total < 0 ? -1 : site.affine.size_along(*dimension));
  if (!sizes) return Decline{Reason::sizes_unknown, site.node, "the channels of its parts are not known"};
  return Parts{list->inputs().vec(), *sizes, *dimension};
}

bool is_constant_along_it(const Site& site) {
  const auto dimension = constant_dimension(site.node->input(1), site.affine.rank());
  return dimension && site.affine.size_along(*dimension) == 1;
}

}  // namespace

Answer concat_backward(const Site& site) {
  jit::Node* list = site.node->input(0)->node();
  if (list->kind() == jit::prim::ListConstruct && site.node->input(0)->uses().size() == 1 && is_constant_along_it(site)) {
    Pass pass;
    for (jit::Value* value : list->inputs()) pass.moves.push_back({value, site.affine, Way::backward});
    return pass;
  }
  const auto read = parts_of(site, 0);
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
  const auto read = parts_of(site, -1);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Parts& parts = std::get<Parts>(read);
  int64_t start = 0;
  int64_t total = 0;
  for (size_t i = 0; i < parts.sizes.size(); ++i) {
    if (i < site.place) start += parts.sizes[i];
    total += parts.sizes[i];
  }
  return to_output(site, algebra::as_part(site.affine, parts.dimension, start, parts.sizes.at(site.place), total));
}

}  // namespace bnfold
