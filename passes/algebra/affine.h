// An affine y = scale * x + shift that travels along the graph, and how the views of a value act on it.
//
// Both tensors are double and broadcast against the value they belong to: they have its rank, and size 1 in every dimension along
// which they don't vary. [1,C,1,1] is a norm of a [N,C,H,W] value, [1,F] one of [N,F]. So permute and reshape act on the affine as
// they act on the value, and nobody needs to know where the channel is.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace bnfold::algebra {

struct Affine {
  at::Tensor scale;
  at::Tensor shift;

  int64_t rank() const { return scale.dim(); }

  // Whether scale and shift have size 1 in every dimension but `dimension`, which may be negative.
  bool varies_only_along(int64_t dimension) const;

  // How many different channels lie along `dimension`: 1 where the affine is constant there.
  int64_t size_along(int64_t dimension) const;
};

// The statistics and parameters of a batch norm, each [C] and each but mean and variance possibly undefined.
struct NormParameters {
  at::Tensor weight;  // gamma, 1 where undefined
  at::Tensor bias;    // beta, 0 where undefined
  at::Tensor mean;
  at::Tensor variance;
  double epsilon = 0;
};

// The affine of a batch norm in eval mode, [C] each:
//     scale = gamma / sqrt(variance + epsilon),   shift = beta - scale * mean
// (Ioffe and Szegedy, 2015, algorithm 2, step 11). Computed in double on the device of the statistics.
Affine of_norm(const NormParameters& norm);

// An affine of [C] for a value of rank `rank` whose channels are dimension 1.
Affine along_channels(const Affine& affine, int64_t rank);

// An affine that broadcasts against a value of rank `rank`, with all its dimensions.
Affine broadcast_to_rank(const Affine& affine, int64_t rank);

// Whether every scale and every shift is a finite number.
bool is_finite(const Affine& affine);

// y = scale2 * (scale1 * x + shift1) + shift2.
Affine composed(const Affine& first, const Affine& then);

// x = y / scale - shift / scale; every scale must differ from 0.
Affine inverse(const Affine& affine);

// The scale with a shift of 0, and the shift with a scale of 1.
Affine scale_only(const Affine& affine);
Affine shift_only(const Affine& affine);

bool has_shift(const Affine& affine);       // some shift is not 0
bool has_scale(const Affine& affine);       // some scale is not 1
bool is_neutral(const Affine& affine);      // every scale is 1, every shift 0
bool has_zero_scale(const Affine& affine);  // some scale is 0
bool is_same(const Affine& one, const Affine& other);  // to the last bit, on one device
bool is_mask(const Affine& affine);         // every scale is 0 or 1, every shift 0

// The largest factor by which a scale that is not 0 makes a value larger or smaller: max |scale| or 1 / min |scale|, at least 1.
double stretch(const Affine& affine);

// affine = rest * mask: 0 where the scale is 0, and 1 elsewhere; the affine with 1 in place of these scales.
Affine mask_of(const Affine& affine);
Affine without_zero_scales(const Affine& affine);

// Whether every scale is at least 0.
bool is_monotonic(const Affine& affine);

// The affine of permute(x, order), where x has `affine`; and of x, where permute(x, order) has `affine`.
Affine behind_permute(const Affine& affine, const std::vector<int64_t>& order);
Affine before_permute(const Affine& affine, const std::vector<int64_t>& order);

// The affine of a value x whose view flatten(x, first, last) has `affine`; `first` and `last` are dimensions of x, not negative.
// Nothing where the affine varies along the flattened dimension, since x's sizes are not known.
std::optional<Affine> before_flatten(const Affine& affine, int64_t first, int64_t last);

// Dimension `dimension` of x, of size 1 in the affine or `size`, becomes dimensions of `sizes`, whose product is `size`.
Affine behind_split(const Affine& affine, int64_t dimension, const std::vector<int64_t>& sizes);

// The `count` dimensions from `first` on, of `sizes` in x, become one.
Affine behind_merge(const Affine& affine, int64_t first, const std::vector<int64_t>& sizes);

// Without dimension `dimension`, along which the affine is constant; and with one more in its place.
Affine without_dimension(const Affine& affine, int64_t dimension);
Affine with_dimension(const Affine& affine, int64_t dimension);

// The affine of a part of x, the channels `start` to `start + length` along `dimension`.
Affine part(const Affine& affine, int64_t dimension, int64_t start, int64_t length);

// The affine of a concatenation along `dimension`, where the part of `length` channels at `start` has `affine` and the others, of
// `total` together, stay as they are.
Affine as_part(const Affine& affine, int64_t dimension, int64_t start, int64_t length, int64_t total);

}  // namespace bnfold::algebra
