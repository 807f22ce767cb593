// A norm takes another one in, before or behind it, into its weight and bias.
//
//   before   x --> norm(a, b) --> norm(scale, shift) --> y          after   x --> norm(scale*a, scale*b + shift) --> y
//            x --> norm(scale, shift) --> norm(a, b) --> y                  x --> norm(a*scale, a*shift + b) --> y
//
// Formula     a*x + b with a = gamma/sqrt(var + eps), b = beta - a*mean. Behind it: gamma' = scale*gamma, beta' = scale*beta + shift.
//             Before it: gamma' = gamma*scale, and a*(scale*x + shift) + b = (a*scale)*x + b', so beta' = b' + gamma'/sqrt(var+eps) * mean
//             with b' = a*shift + b.
// Conditions  the value is its input, not a parameter                      norm_parameters_not_static
//             it is a norm in eval mode with static parameters             those of find_norms
//             of the same dtype                                            dtypes_differ
//             the affine varies along dimension 1 only                     affine_varies_elsewhere
//             with as many channels                                        channels_differ
//             both are on one device                                       devices_differ
//             the parameters stay in the range of their dtype              folded_weight_not_finite
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
  at::Tensor deviation;  // sqrt(var + eps)
  jit::Value* leaf;
  bool has_weight;
};

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
  parameters.mean = planned_operand(site, 3)->tensor.to(at::kDouble);
  parameters.deviation =
      (planned_operand(site, 4)->tensor.to(at::kDouble) + *constant_number(site.node->namedInput("eps"))).sqrt();
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

Answer with_parameters(const Site& site, const Parameters& parameters, const at::Tensor& weight, const at::Tensor& bias) {
  const auto rounded = [&](const at::Tensor& tensor) {
    return tensor.to(site.norm_dtype, /*non_blocking=*/false, /*copy=*/true);
  };
  const at::Tensor new_weight = rounded(weight);
  const at::Tensor new_bias = rounded(bias);
  if (algebra::left_range({}, new_weight) || algebra::left_range({}, new_bias)) {
    return Decline{Reason::folded_weight_not_finite, site.node,
                   "the parameters of the norm would leave the range of their dtype"};
  }
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
  const at::Tensor a = norm.weight / norm.deviation;
  const at::Tensor weight = norm.weight * site.affine.scale.flatten();
  const at::Tensor shift = a * site.affine.shift.flatten() + norm.bias - a * norm.mean;
  return with_parameters(site, norm, weight, shift + weight / norm.deviation * norm.mean);
}

}  // namespace bnfold
