#include "algebra/affine.h"

namespace bnfold::algebra {

namespace {

at::Tensor along_channels(const at::Tensor& values, int64_t rank) {
  std::vector<int64_t> shape(rank, 1);
  shape.at(1) = values.numel();
  return values.reshape(shape);
}

at::Tensor inverse_permute(const at::Tensor& tensor, const std::vector<int64_t>& order) {
  std::vector<int64_t> inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse.at(order[i]) = static_cast<int64_t>(i);
  return tensor.permute(inverse);
}

at::Tensor unflatten_ones(const at::Tensor& tensor, int64_t first, int64_t last) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape.insert(shape.begin() + first, last - first, 1);
  return tensor.reshape(shape);
}

}  // namespace

bool Affine::varies_only_along(int64_t dimension) const {
  const int64_t kept = dimension < 0 ? dimension + rank() : dimension;
  for (int64_t d = 0; d < rank(); ++d) {
    if (d != kept && (scale.size(d) != 1 || shift.size(d) != 1)) return false;
  }
  return true;
}

int64_t Affine::size_along(int64_t dimension) const {
  return std::max(scale.size(dimension), shift.size(dimension));
}

Affine of_norm(const NormParameters& norm) {
  const at::Tensor mean = norm.mean.to(at::kDouble);
  at::Tensor scale = (norm.variance.to(at::kDouble) + norm.epsilon).rsqrt();
  if (norm.weight.defined()) scale = scale * norm.weight.to(at::kDouble);
  at::Tensor shift = -scale * mean;
  if (norm.bias.defined()) shift = shift + norm.bias.to(at::kDouble);
  return {scale, shift};
}

Affine along_channels(const Affine& affine, int64_t rank) {
  return {along_channels(affine.scale, rank), along_channels(affine.shift, rank)};
}

bool is_finite(const Affine& affine) {
  return affine.scale.isfinite().all().item<bool>() && affine.shift.isfinite().all().item<bool>();
}

Affine before_permute(const Affine& affine, const std::vector<int64_t>& order) {
  return {inverse_permute(affine.scale, order), inverse_permute(affine.shift, order)};
}

std::optional<Affine> before_flatten(const Affine& affine, int64_t first, int64_t last) {
  if (affine.size_along(first) != 1) return std::nullopt;
  return Affine{unflatten_ones(affine.scale, first, last), unflatten_ones(affine.shift, first, last)};
}

}  // namespace bnfold::algebra
