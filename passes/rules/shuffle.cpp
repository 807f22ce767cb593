// Operators that move channels let the affine pass, its channels moved likewise.
//
//   before   x --> norm(scale, shift) --> channel_shuffle(g) --> y          after   x --> channel_shuffle(g) --> norm(scale', shift') --> y
//
// Formula     channel_shuffle(g): channels seen as [g, C/g], transposed: channel j*g + i comes from i*C/g + j.
//             pixel_shuffle(r): output channel c is made of the input channels c*r*r to c*r*r + r*r - 1, and pixel_unshuffle back.
// Conditions  the factor is a constant                                     operand_not_constant
//             the affine varies along the channels only                    affine_varies_elsewhere
//             pixel_shuffle forward: the r*r channels of an output agree   affine_varies_elsewhere
#include <string_view>

#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace {

int64_t channel_dimension(const Site& site) {
  return site.node->kind() == torch::jit::Symbol::fromQualString("aten::channel_shuffle") ? 1 : site.affine.rank() - 3;
}

at::Tensor channels_first(const at::Tensor& tensor, int64_t dimension) {
  return tensor.reshape({tensor.size(dimension)});
}

using Rearranged = std::optional<at::Tensor>;

Rearranged shuffled(const at::Tensor& channels, int64_t groups) {
  if (channels.numel() % groups != 0) return std::nullopt;
  return channels.reshape({groups, -1}).t().flatten();
}

Rearranged repeated(const at::Tensor& channels, int64_t factor) {
  return channels.repeat_interleave(factor * factor);
}

Rearranged merged(const at::Tensor& channels, int64_t factor) {
  if (channels.numel() % (factor * factor) != 0) return std::nullopt;
  const at::Tensor grouped = channels.reshape({-1, factor * factor});
  if (!grouped.eq(grouped.select(1, 0).unsqueeze(1)).all().item<bool>()) return std::nullopt;
  return grouped.select(1, 0);
}

Answer rearranged(const Site& site, Rearranged (*rearrange)(const at::Tensor&, int64_t), Way way) {
  const auto factor = constant_int(site.node->input(1));
  if (!factor || *factor <= 0)
    return Decline{Reason::operand_not_constant, site.node, "its factor is computed while the module runs"};
  const int64_t dimension = channel_dimension(site);
  if (dimension < 0 || !site.affine.varies_only_along(dimension)) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "the norm's channels are not those that it moves"};
  }
  const auto moved = [&](const at::Tensor& tensor) -> std::optional<at::Tensor> {
    if (tensor.size(dimension) == 1) return tensor;
    const Rearranged channels = rearrange(channels_first(tensor, dimension), *factor);
    if (!channels) return std::nullopt;
    std::vector<int64_t> shape(tensor.dim(), 1);
    shape[dimension] = channels->numel();
    return channels->reshape(shape);
  };
  const auto scale = moved(site.affine.scale);
  const auto shift = moved(site.affine.shift);
  if (!scale || !shift) {
    return Decline{Reason::affine_varies_elsewhere, site.node, "it joins channels with different scales or shifts"};
  }
  return way == Way::forward ? to_output(site, {*scale, *shift}) : to_input(site, {*scale, *shift});
}

Rearranged unshuffled(const at::Tensor& channels, int64_t groups) {
  if (channels.numel() % groups != 0) return std::nullopt;
  return channels.reshape({-1, groups}).t().flatten();
}

}  // namespace

Answer channel_shuffle_forward(const Site& site) {
  return rearranged(site, shuffled, Way::forward);
}

Answer channel_shuffle_backward(const Site& site) {
  return rearranged(site, unshuffled, Way::backward);
}

Answer pixel_shuffle_forward(const Site& site) {
  return rearranged(site, merged, Way::forward);
}

Answer pixel_shuffle_backward(const Site& site) {
  return rearranged(site, repeated, Way::backward);
}

Answer pixel_unshuffle_forward(const Site& site) {
  return rearranged(site, repeated, Way::forward);
}

Answer pixel_unshuffle_backward(const Site& site) {
  return rearranged(site, merged, Way::backward);
}

}  // namespace bnfold
