// A norm before an activation that cuts values off becomes a bound for each channel, and goes on behind it.
//
//   before   x --> norm(scale, shift) --> clamp(low, high) --> y
//   after    x --> min(max(., lower), upper) --> norm(scale, shift) --> y          (relu: low = 0, no high)
//
// Formula     clamp(a*x + b, low, high) = a * clamp(x, (low - b)/a, (high - b)/a) + b     where a > 0
//                                       = a * clamp(x, (high - b)/a, (low - b)/a) + b     where a < 0
//                                       = clamp(b, low, high)                             where a = 0: scale 0 and that shift
//             A bound beyond the range of the dtype never cuts, or always: then the channel is constant. A channel of scale 0 that would be
//             the only one with a shift becomes constant by its bounds instead, so that what comes behind need not take a shift.
//             Scales of at least 0 and shifts of 0 pass relu and leaky_relu as they are, scales of 0 and 1 every range that has 0.
//             a * prelu(x, k) = prelu(a*k*x, 1/k) where a < 0 and k > 0, and prelu(a*x, k) = a*k * prelu(x, 1/k) likewise.
// Conditions  forward: low and high are constants                          operand_not_constant
//             backward: one of these scales                                operator_not_affine
//             leaky_relu, prelu: a >= 0, or prelu with static slopes > 0   scale_not_positive
//             and b = 0                                                    shift_not_passable
#include <limits>
#include <string_view>

#include "graph/constants.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What an activation cuts values to, from both sides.
struct Range {
  double low;
  double high;
};

std::optional<double> limit(const jit::Node* node, const char* name, double without) {
  if (!has_argument(node, name)) return without;
  const jit::Value* value = node->namedInput(name);
  if (value->type()->kind() == c10::TypeKind::NoneType) return without;
  return constant_number(value);
}

std::optional<Range> range_of(const jit::Node* node) {
  const std::string_view operation = node->kind().toUnqualString();
  if (operation == "relu" || operation == "relu_") return Range{0, kInfinity};
  if (operation == "relu6" || operation == "relu6_") return Range{0, 6};
  const bool hardtanh = operation.substr(0, 8) == "hardtanh";
  const auto low = limit(node, hardtanh ? "min_val" : "min", -kInfinity);
  const auto high = limit(node, hardtanh ? "max_val" : "max", kInfinity);
  if (!low || !high || *low > *high) return std::nullopt;
  return Range{*low, *high};
}

double largest(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return 65504;
    case at::kBFloat16:
      return 3.3895313892515355e38;
    case at::kFloat:
      return std::numeric_limits<float>::max();
    default:
      return std::numeric_limits<double>::max();
  }
}

struct Bounded {
  at::Tensor lower;
  at::Tensor upper;
  algebra::Affine affine;
};

Bounded bounded(const algebra::Affine& affine, const Range& range, at::ScalarType dtype) {
  const at::Tensor a = affine.scale;
  const at::Tensor b = affine.shift.expand_as(a + affine.shift);
  const at::Tensor low = (range.low - b) / a;
  const at::Tensor high = (range.high - b) / a;
  const at::Tensor positive = a.gt(0);
  at::Tensor lower = at::where(positive, low, high);
  at::Tensor upper = at::where(positive, high, low);

  const double most = largest(dtype);
  const at::Tensor always_low = lower.gt(most).logical_or(upper.lt(-most)).logical_or(a.eq(0));
  const at::Tensor constant = at::where(a.eq(0), b, at::where(positive.eq(lower.gt(most)), range.low, range.high));
  const at::Tensor cut = constant.clamp(range.low, range.high);
  lower = lower.masked_fill(always_low.logical_or(lower.lt(-most)), -kInfinity);
  upper = upper.masked_fill(always_low.logical_or(upper.gt(most)), kInfinity);
  algebra::Affine behind{a.masked_fill(always_low, 0), at::where(always_low, cut, b)};

  const bool others_shift = b.masked_fill(always_low, 0).ne(0).any().item<bool>();
  if (!others_shift && algebra::has_shift(behind)) {
    const at::Tensor shifted = always_low.logical_and(behind.shift.ne(0));
    lower = at::where(shifted, behind.shift, lower);
    upper = at::where(shifted, behind.shift, upper);
    behind.scale = behind.scale.masked_fill(shifted, 1);
    behind.shift = behind.shift.masked_fill(shifted, 0);
  }
  return {lower, upper, behind};
}

at::Tensor needed(const at::Tensor& bound, double never) {
  return bound.ne(never).any().item<bool>() ? bound : at::Tensor();
}

}  // namespace

Answer activation_forward(const Site& site) {
  const auto range = range_of(site.node);
  if (!range) return Decline{Reason::operand_not_constant, site.node, "its limits are computed while the module runs"};
  const bool homogeneous = range->low == 0 && range->high == kInfinity;
  if (homogeneous && algebra::is_monotonic(site.affine) && !algebra::has_shift(site.affine)) return to_output(site, site.affine);
  const Bounded result = bounded(site.affine, *range, site.norm_dtype);
  Pass pass = to_output(site, result.affine);
  pass.edits.push_back(Bound{site.node, needed(result.lower, -kInfinity), needed(result.upper, kInfinity)});
  return pass;
}

Answer activation_backward(const Site& site) {
  const auto range = range_of(site.node);
  const bool homogeneous = range && range->low == 0 && range->high == kInfinity;
  const bool scales = homogeneous && algebra::is_monotonic(site.affine) && !algebra::has_shift(site.affine);
  const bool masks = range && range->low <= 0 && range->high >= 0 && algebra::is_mask(site.affine);
  if (!scales && !masks) {
    return Decline{Reason::operator_not_affine, site.node, "it cuts values off that the norm would have to be told of"};
  }
  return to_input(site, site.affine);
}

namespace {

// prelu with the slopes that let negative scales pass, and the affine that is left behind it, or before it; nothing where no slopes do.
std::optional<std::pair<algebra::Affine, Edit>> with_slopes_swapped(const Site& site) {
  const algebra::Affine& affine = site.affine;
  if (site.node->kind() != jit::aten::prelu || affine.rank() < 2 || !affine.varies_only_along(1) || algebra::has_shift(affine))
    return std::nullopt;
  const auto operand = planned_operand(site, 1);
  if (!operand || !operand->tensor.defined() || !operand->views.empty()) return std::nullopt;
  const at::Tensor& before = operand->tensor;
  if (!algebra::is_plain_floating(before) || before.device() != affine.scale.device()) return std::nullopt;
  const at::Tensor scales = affine.scale.flatten();
  if (!at::are_expandable(before.flatten().sizes(), scales.sizes())) return std::nullopt;
  const std::vector<at::Tensor> both = at::broadcast_tensors({before.flatten().to(at::kDouble), scales});
  const at::Tensor& slopes = both[0];
  const at::Tensor negative = both[1].lt(0);
  const at::Tensor swapped = at::where(negative, slopes.reciprocal(), slopes).to(before.scalar_type());
  const bool turns = negative.logical_and(slopes.le(0)).any().item<bool>();
  if (turns || !swapped.isfinite().all().item<bool>()) return std::nullopt;
  const at::Tensor scale = at::where(negative, both[1] * slopes, both[1]);
  const at::Tensor weight = swapped.numel() == before.numel() ? swapped.view_as(before) : swapped;
  const std::string name = attribute_name(site.known.store, operand->leaf);
  return std::pair(algebra::along_channels({scale, at::zeros_like(scale)}, affine.rank()),
                   Edit(SetInput{site.node, 1, weight, operand->leaf, name}));
}

Answer through_leaky(const Site& site, Pass (*pass_on)(const Site&, const algebra::Affine&)) {
  if (site.place != 0) return Decline{Reason::operand_not_constant, site.node, "the normalized value is its slope"};
  if (!algebra::is_monotonic(site.affine)) {
    const auto swapped = with_slopes_swapped(site);
    if (!swapped) return Decline{Reason::scale_not_positive, site.node, "a negative scale changes its sign"};
    Pass pass = pass_on(site, swapped->first);
    pass.edits.push_back(swapped->second);
    return pass;
  }
  if (algebra::has_shift(site.affine)) return Decline{Reason::shift_not_passable, site.node, "its slope changes at 0"};
  return pass_on(site, site.affine);
}

}  // namespace

Answer leaky_activation_forward(const Site& site) {
  return through_leaky(site, to_output);
}

Answer leaky_activation_backward(const Site& site) {
  return through_leaky(site, to_input);
}

}  // namespace bnfold
