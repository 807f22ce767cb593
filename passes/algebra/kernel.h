// The weights of a layer, and how an affine behind the layer goes into them.
//
// Everything is computed in double on the weights' device and rounded once to the weights' dtype; memory format is kept.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "algebra/affine.h"

namespace bnfold::algebra {

// Where a weight keeps its output channels.
enum class KernelLayout {
  output_first,  // conv [O, I/groups, ...] and linear [O, I]: dimension 0
  input_first,   // conv_transpose [I, O/groups, ...]: dimension 1, a slice for each group of dimension 0
  output_last,   // the right operand of matmul [I, O]: dimension 1
};

// Whether a tensor is dense, and float, double, half or bfloat16: what can be folded.
bool is_plain_floating(const at::Tensor& tensor);

struct Kernel {
  at::Tensor weight;
  at::Tensor bias;  // [O], undefined where the layer has none
  KernelLayout layout = KernelLayout::output_first;
  int64_t groups = 1;

  int64_t output_channels() const;
  int64_t input_channels() const;
};

// The weight W' with W'[o, ...] = scale[o] * W[o, ...], for scale [O].
at::Tensor scale_outputs(const Kernel& kernel, const at::Tensor& scale);

// The kernel that computes scale * kernel(x) + shift, for scale and shift of [O] or [1]:
//     W'[o, ...] = scale[o] * W[o, ...],   b'[o] = scale[o] * b[o] + shift[o]   (b = 0 where there is none)
// since scale * (W x + b) + shift = (scale W) x + (scale b + shift). Padding does not matter: the affine is behind the sum.
Kernel scale_and_shift_outputs(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift);

// The kernel that computes kernel(scale * x + shift), for scale and shift of [I] or [1]:
//     W'[o, i, ...] = W[o, i, ...] * scale[i],   b'[o] = b[o] + sum over i and taps of W[o, i, ...] * shift[i]
// since W (scale x + shift) + b = (W scale) x + (W shift + b). Where shift is not 0, every output must read every tap: no padding.
// The bias stays undefined where there is none and shift is 0.
Kernel scale_and_shift_inputs(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift);

// The kernel that computes kernel(x) + scale * x + shift, for an output_first kernel with as many outputs as inputs, stride 1, and
// padding that keeps the size: scale[o] is added to the tap in the middle that reads input o. Scale and shift are [O] or [1].
Kernel with_identity(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift);

// The kernel that computes weight * kernel(x) + other_weight * other(x), for output_first kernels of the same channels and groups: `other`
// in the middle of `kernel`, zeros around it. No spatial size of `other` is larger, and each is smaller by an even number.
Kernel sum_of_kernels(const Kernel& kernel, double weight, const Kernel& other, double other_weight);

// Whether `after` has a NaN or an infinity where `before` had none: a folded value left the range of its dtype.
bool left_range(const at::Tensor& before, const at::Tensor& after);

}  // namespace bnfold::algebra
