#include "algebra/affine.h"

#include <c10/util/accumulate.h>

#include <algorithm>
#include <cmath>

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

// Affines are small: an operator on tensors costs more than what it computes.
template <typename Predicate>
bool any_element(const at::Tensor& tensor, const Predicate& predicate) {
  const at::Tensor values = tensor.cpu().contiguous();
  const double* first = values.data_ptr<double>();
  return std::any_of(first, first + values.numel(), predicate);
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

Affine broadcast_to_rank(const Affine& affine, int64_t rank) {
  const auto extended = [rank](const at::Tensor& tensor) {
    std::vector<int64_t> shape(std::max<int64_t>(rank - tensor.dim(), 0), 1);
    shape.insert(shape.end(), tensor.sizes().begin(), tensor.sizes().end());
    return tensor.reshape(shape);
  };
  return {extended(affine.scale), extended(affine.shift)};
}

bool is_finite(const Affine& affine) {
  const auto is_not_finite = [](double value) { return !std::isfinite(value); };
  return !any_element(affine.scale, is_not_finite) && !any_element(affine.shift, is_not_finite);
}

Affine composed(const Affine& first, const Affine& then) {
  return {first.scale * then.scale, first.shift * then.scale + then.shift};
}

Affine inverse(const Affine& affine) {
  return {affine.scale.reciprocal(), -affine.shift / affine.scale};
}

Affine scale_only(const Affine& affine) {
  return {affine.scale, at::zeros_like(affine.shift)};
}

Affine shift_only(const Affine& affine) {
  return {at::ones_like(affine.scale), affine.shift};
}

bool is_same(const Affine& one, const Affine& other) {
  return one.scale.device() == other.scale.device() && one.scale.equal(other.scale) && one.shift.equal(other.shift);
}

bool is_neutral(const Affine& affine) {
  return !has_scale(affine) && !has_shift(affine);
}

bool has_shift(const Affine& affine) {
  return any_element(affine.shift, [](double shift) { return shift != 0; });
}

bool has_scale(const Affine& affine) {
  return any_element(affine.scale, [](double scale) { return scale != 1; });
}

bool has_zero_scale(const Affine& affine) {
  return any_element(affine.scale, [](double scale) { return scale == 0; });
}

bool is_mask(const Affine& affine) {
  return !any_element(affine.scale, [](double scale) { return scale != 0 && scale != 1; }) && !has_shift(affine);
}

double stretch(const Affine& affine) {
  const at::Tensor size = affine.scale.abs();
  const at::Tensor stretches = at::maximum(size, size.reciprocal()).masked_fill(size.eq(0), 1);
  return stretches.numel() == 0 ? 1 : stretches.max().item<double>();
}

Affine mask_of(const Affine& affine) {
  return {affine.scale.ne(0).to(at::kDouble), at::zeros_like(affine.shift)};
}

Affine without_zero_scales(const Affine& affine) {
  return {affine.scale.masked_fill(affine.scale.eq(0), 1), affine.shift};
}

bool is_monotonic(const Affine& affine) {
  return !any_element(affine.scale, [](double scale) { return !(scale >= 0); });
}

Affine behind_permute(const Affine& affine, const std::vector<int64_t>& order) {
  return {affine.scale.permute(order), affine.shift.permute(order)};
}

Affine before_permute(const Affine& affine, const std::vector<int64_t>& order) {
  return {inverse_permute(affine.scale, order), inverse_permute(affine.shift, order)};
}

std::optional<Affine> before_flatten(const Affine& affine, int64_t first, int64_t last) {
  if (affine.size_along(first) != 1) return std::nullopt;
  return Affine{unflatten_ones(affine.scale, first, last), unflatten_ones(affine.shift, first, last)};
}

Affine behind_split(const Affine& affine, int64_t dimension, const std::vector<int64_t>& sizes) {
  const auto split = [&](const at::Tensor& tensor) {
    std::vector<int64_t> shape = tensor.sizes().vec();
    const bool constant = shape.at(dimension) == 1;
    shape.erase(shape.begin() + dimension);
    const std::vector<int64_t> parts = constant ? std::vector<int64_t>(sizes.size(), 1) : sizes;
    shape.insert(shape.begin() + dimension, parts.begin(), parts.end());
    return tensor.reshape(shape);
  };
  return {split(affine.scale), split(affine.shift)};
}

Affine behind_merge(const Affine& affine, int64_t first, const std::vector<int64_t>& sizes) {
  const auto merge = [&](const at::Tensor& tensor) {
    std::vector<int64_t> shape = tensor.sizes().vec();
    const auto begin = shape.begin() + first;
    const auto end = begin + static_cast<int64_t>(sizes.size());
    const bool constant = std::all_of(begin, end, [](int64_t size) { return size == 1; });
    if (!constant) std::copy(sizes.begin(), sizes.end(), begin);
    const at::Tensor expanded = tensor.expand(shape);
    const int64_t merged = constant ? 1 : c10::multiply_integers(sizes);
    shape.erase(begin, end);
    shape.insert(shape.begin() + first, merged);
    return expanded.reshape(shape);
  };
  return {merge(affine.scale), merge(affine.shift)};
}

Affine without_dimension(const Affine& affine, int64_t dimension) {
  return {affine.scale.squeeze(dimension), affine.shift.squeeze(dimension)};
}

Affine with_dimension(const Affine& affine, int64_t dimension) {
  return {affine.scale.unsqueeze(dimension), affine.shift.unsqueeze(dimension)};
}

Affine part(const Affine& affine, int64_t dimension, int64_t start, int64_t length) {
  const auto cut = [&](const at::Tensor& tensor) {
    return tensor.size(dimension) == 1 ? tensor : tensor.narrow(dimension, start, length);
  };
  return {cut(affine.scale), cut(affine.shift)};
}

Affine as_part(const Affine& affine, int64_t dimension, int64_t start, int64_t length, int64_t total) {
  const auto placed = [&](const at::Tensor& tensor, double elsewhere) {
    std::vector<int64_t> shape = tensor.sizes().vec();
    shape.at(dimension) = total;
    at::Tensor whole = at::full(shape, elsewhere, tensor.options());
    whole.narrow(dimension, start, length).copy_(tensor);
    return whole;
  };
  return {placed(affine.scale, 1), placed(affine.shift, 0)};
}

}  // namespace bnfold::algebra
