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

// Whether every scale and every shift is a finite number.
bool is_finite(const Affine& affine);

// The affine of a value x whose view permute(x, order) has `affine`.
Affine before_permute(const Affine& affine, const std::vector<int64_t>& order);

// The affine of a value x whose view flatten(x, first, last) has `affine`; `first` and `last` are dimensions of x, not negative.
// Nothing where the affine varies along the flattened dimension, since x's sizes are not known.
std::optional<Affine> before_flatten(const Affine& affine, int64_t first, int64_t last);

}  // namespace bnfold::algebra
