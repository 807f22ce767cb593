// How far two tensors are apart.
#pragma once

#include <ATen/ATen.h>

#include <limits>

namespace bnfold::test {

// max |expected - actual| / max |expected|, as bnfold::check measures it: beside a large element, the rounding error of a small one may be as large
// as that one. Infinite for tensors of different sizes.
inline double relative_error(const at::Tensor& expected, const at::Tensor& actual) {
  if (expected.sizes() != actual.sizes()) return std::numeric_limits<double>::infinity();
  if (expected.numel() == 0) return 0;
  const double error = (expected - actual).abs().max().item<double>();
  return error == 0 ? 0 : error / expected.abs().max().item<double>();
}

}  // namespace bnfold::test
