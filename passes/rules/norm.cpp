// A norm takes another one in, before or behind it, into its weight and bias.
//
//   before   x --> norm(a, b) --> norm(scale, shift) --> y          after   x --> norm(scale*a, scale*b + shift) --> y
//            x --> norm(scale, shift) --> norm(a, b) --> y                  x --> norm(a*scale, a*shift + b) --> y
//
// Formula     a*x + b with a = gamma/sqrt(var + eps), b = beta - a*mean. Behind it: gamma' = scale*gamma, beta' = scale*beta + shift.
//             Before it the statistics become those of x, as later folds ask the norm how far its input spreads: mean' = (mean - shift)/scale
//             and var' = var/scale^2, both 0 where the scale is. Then a*(scale*x + shift) + b = a'*x + b' with a' = a*scale and
//             b' = a*shift + b, so gamma' = a'*sqrt(var' + eps), beta' = b' + a'*mean'.
// Conditions  the value is its input, not a parameter                      norm_parameters_not_static
//             it is a norm in eval mode with static parameters             those of find_norms
//             of the same dtype                                            dtypes_differ
//             the affine varies along dimension 1 only                     affine_varies_elsewhere
//             with as many channels                                        channels_differ
//             both are on one device                                       devices_differ
//             the parameters stay in the range of their dtype,             folded_weight_not_finite
//             and so does what the norm divides by
#include <algorithm>

#include "graph/constants.h"
#include "knowledge/find_norms.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

struct Parameters {
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor mean;
  at::Tensor variance;
  double epsilon;
  at::ScalarType dtype_of_statistics;
  jit::Value* leaf;
  bool has_weight;
};

at::Tensor deviation(const at::Tensor& variance, double epsilon) {
  return (variance + epsilon).sqrt();
}

std::variant<Parameters, Decline> parameters_of(const Site& site) {
  if (site.place != 0) return Decline{Reason::norm_parameters_not_static, site.node, "the normalized value is its parameter"};
  const Norm norm = *read_norm(site.node, site.known.store);
  if (const auto* decline = std::get_if<Decline>(&norm.content)) return *decline;
  if (norm.dtype != site.norm_dtype) return Decline{Reason::dtypes_differ, site.node, "the two norms have different dtypes"};
  if (!site.affine.varies_only_along(1)) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the two norms have their channels along different dimensions"};
  }
  Parameters parameters;
  parameters.leaf = norm.leaf;
  const at::Tensor mean = planned_operand(site, 3)->tensor;
  parameters.mean = mean.to(at::kDouble);
  parameters.variance = planned_operand(site, 4)->tensor.to(at::kDouble);
  parameters.epsilon = *constant_number(site.node->namedInput("eps"));
  parameters.dtype_of_statistics = mean.scalar_type();
  const auto weight = planned_operand(site, 1);
  const auto bias = planned_operand(site, 2);
  parameters.has_weight = weight && weight->tensor.defined();
  parameters.weight = parameters.has_weight ? weight->tensor.to(at::kDouble) : at::ones_like(parameters.mean);
  parameters.bias = bias && bias->tensor.defined() ? bias->tensor.to(at::kDouble) : at::zeros_like(parameters.mean);
  const int64_t channels = site.affine.size_along(1);
  if (channels != 1 && channels != parameters.mean.numel()) {
    return Decline{Reason::channels_differ, site.node, "the two norms have different numbers of channels"};
  }
  if (parameters.mean.device() != site.affine.scale.device()) {
    return Decline{Reason::devices_differ, site.node, "the two norms are on different devices"};
  }
  return parameters;
}

at::Tensor rounded(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

std::optional<Decline> why_not_in_range(const Site& site, const std::vector<at::Tensor>& tensors) {
  const auto leaves_range = [](const at::Tensor& tensor) { return algebra::left_range({}, tensor); };
  if (std::none_of(tensors.begin(), tensors.end(), leaves_range)) return std::nullopt;
  return Decline{Reason::folded_weight_not_finite, site.node, "the parameters of the norm would leave the range of their dtype"};
}

Answer with_parameters(const Site& site, const Parameters& parameters, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor new_weight = rounded(weight, site.norm_dtype);
  const at::Tensor new_bias = rounded(bias, site.norm_dtype);
  if (const auto decline = why_not_in_range(site, {new_weight, new_bias})) return *decline;
  Absorb absorb{{SetInput{site.node, 2, new_bias, parameters.leaf, "bias"}}, site.known.store.layer(parameters.leaf)};
  if (algebra::has_scale(site.affine) || !parameters.has_weight) {
    absorb.edits.push_back(SetInput{site.node, 1, new_weight, parameters.leaf, "weight"});
  }
  return absorb;
}

}  // namespace

Answer norm_backward(const Site& site) {
  const auto read = parameters_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Parameters& norm = std::get<Parameters>(read);
  const at::Tensor scale = site.affine.scale.flatten();
  return with_parameters(site, norm, scale * norm.weight, scale * norm.bias + site.affine.shift.flatten());
}

Answer norm_forward(const Site& site) {
  const auto read = parameters_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Parameters& norm = std::get<Parameters>(read);
  const at::Tensor scale = site.affine.scale.flatten();
  const at::Tensor shift = site.affine.shift.flatten();
  const at::Tensor zero = scale.eq(0);
  const at::Tensor mean = rounded(((norm.mean - shift) / scale).masked_fill(zero, 0), norm.dtype_of_statistics);
  const at::Tensor variance = rounded((norm.variance / scale.square()).masked_fill(zero, 0), norm.dtype_of_statistics);
  const at::Tensor divisor = deviation(variance.to(at::kDouble), norm.epsilon);
  if (const auto decline = why_not_in_range(site, {mean, variance, divisor.reciprocal()})) return *decline;
  const at::Tensor a = norm.weight / deviation(norm.variance, norm.epsilon);
  const at::Tensor bias = a * (shift - norm.mean) + norm.bias + a * scale * mean.to(at::kDouble);
  Answer answer = with_parameters(site, norm, a * scale * divisor, bias);
  if (auto* absorb = std::get_if<Absorb>(&answer)) {
    absorb->edits.push_back(SetInput{site.node, 3, mean, norm.leaf, "running_mean"});
    absorb->edits.push_back(SetInput{site.node, 4, variance, norm.leaf, "running_var"});
  }
  return answer;
}

}  // namespace bnfold
