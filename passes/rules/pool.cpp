// Pooling lets an affine pass that is constant over the pooled dimensions.
//
//   before   x --> pool --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> pool --> y, and the other way round
//
// Formula     An average of scale * x + shift is scale * average + shift, as its weights sum to 1; a maximum likewise where scale >= 0.
//             The maximum of a single pixel is that pixel.
// Conditions  the affine is constant along the pooled dimensions            affine_varies_elsewhere
//             average: a shift only where the weights sum to 1: padding is
//             not counted and the divisor not overridden                   shift_at_padding
//             maximum: scale >= 0, or each window is one pixel             scale_not_positive
//             whose place nobody asks for                                  value_has_other_readers
#include <string_view>

#include "graph/constants.h"
#include "graph/operators.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool weights_sum_to_one(const jit::Node* node) {
  if (!is_left_out(node, "divisor_override")) return false;
  if (!has_argument(node, "count_include_pad")) return true;
  return is_list_of(node->namedInput("padding"), 0) || constant_bool(node->namedInput("count_include_pad")) == false;
}

bool takes_single_pixels(const jit::Node* node) {
  return has_argument(node, "kernel_size") && is_list_of(node->namedInput("kernel_size"), 1);
}

std::optional<Decline> why_not(const Site& site) {
  const std::string_view operation = site.node->kind().toUnqualString();
  for (int64_t dimension = site.affine.rank() - spatial_dimensions(site.node); dimension < site.affine.rank(); ++dimension) {
    if (dimension < 0 || site.affine.size_along(dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are among the pooled dimensions"};
    }
  }
  if (operation.find("max") != std::string_view::npos) {
    if (site.node->outputs().size() == 2 && !site.node->output(1)->uses().empty()) {
      return Decline{Reason::value_has_other_readers, site.node, "the places of its maxima are read, too"};
    }
    if (algebra::is_monotonic(site.affine) || takes_single_pixels(site.node)) return std::nullopt;
    return Decline{Reason::scale_not_positive, site.node, "under a negative scale, its maximum becomes a minimum"};
  }
  if (!algebra::has_shift(site.affine) || weights_sum_to_one(site.node)) return std::nullopt;
  return Decline{Reason::shift_at_padding, site.node, "it counts padding, to which the shift was not added"};
}

}  // namespace

Answer pool_backward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_input(site, site.affine);
}

Answer pool_forward(const Site& site) {
  if (const auto decline = why_not(site)) return *decline;
  return to_output(site, site.affine);
}

}  // namespace bnfold
