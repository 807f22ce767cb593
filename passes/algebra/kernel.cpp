#include "algebra/kernel.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorIterator.h>

#include <cmath>

namespace bnfold::algebra {

namespace {

// out[i] = in[i] * factor[i] in double, rounded to the type of out and in; a loop of TensorIterator over one dimension.
template <typename T>
void multiply_and_round(char** data, const int64_t* strides, int64_t count) {
  if (strides[0] == sizeof(T) && strides[1] == sizeof(T) && strides[2] == 0) {  // the compiler can vectorize this one
    T* out = reinterpret_cast<T*>(data[0]);
    const T* in = reinterpret_cast<const T*>(data[1]);
    const double factor = *reinterpret_cast<const double*>(data[2]);
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<double>(in[i]) * factor);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const double factor = *reinterpret_cast<const double*>(data[2] + i * strides[2]);
    const double value = static_cast<double>(*reinterpret_cast<const T*>(data[1] + i * strides[1]));
    *reinterpret_cast<T*>(data[0] + i * strides[0]) = static_cast<T>(value * factor);
  }
}

// weight * factors in double, rounded to the weight's dtype. On the CPU in one pass: with whole operators, two conversions through
// memory take four times as long.
at::Tensor rounded_product(const at::Tensor& weight, const at::Tensor& factors) {
  if (!weight.is_cpu()) return weight.to(at::kDouble).mul_(factors).to(weight.scalar_type());
  const at::Tensor values = weight.resolve_neg();  // the sign of a negative view is not in its memory
  const at::Tensor doubles = factors.to(at::kDouble);
  at::Tensor product = at::empty_like(values);
  auto elements =
      at::TensorIteratorConfig().check_all_same_dtype(false).add_output(product).add_input(values).add_input(doubles).build();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, weight.scalar_type(), "rounded_product",
                                  [&] { elements.for_each(multiply_and_round<scalar_t>); });
  return product;
}

// `scale` [O] in the shape that broadcasts against the weight, after input_first weights are seen as [groups, I/groups, O/groups, ...].
at::Tensor beside_weight(const Kernel& kernel, const at::Tensor& scale) {
  std::vector<int64_t> shape(kernel.weight.dim(), 1);
  if (kernel.layout != KernelLayout::input_first) {
    shape[kernel.layout == KernelLayout::output_first ? 0 : 1] = -1;
    return scale.reshape(shape);
  }
  shape[0] = kernel.groups;
  shape[1] = kernel.weight.size(1);
  return scale.reshape(shape).repeat_interleave(kernel.weight.size(0) / kernel.groups, 0);
}

// `scale` [I] in the shape that broadcasts against the weight.
at::Tensor beside_inputs(const Kernel& kernel, const at::Tensor& scale) {
  std::vector<int64_t> shape(kernel.weight.dim(), 1);
  if (kernel.layout != KernelLayout::output_first) {
    shape[0] = -1;
    return scale.reshape(shape);
  }
  shape[0] = kernel.groups;
  shape[1] = kernel.weight.size(1);
  const at::Tensor grouped = scale.reshape(shape);
  return kernel.groups == 1 ? grouped : grouped.repeat_interleave(kernel.weight.size(0) / kernel.groups, 0);
}

// What the kernel makes of a constant input `shift` [I], [O], where every output reads every tap.
at::Tensor shift_response(const Kernel& kernel, const at::Tensor& shift) {
  const at::Tensor& weight = kernel.weight;
  const at::Tensor taps = weight.dim() > 2 ? weight.flatten(2).sum(2, /*keepdim=*/false, at::kDouble) : weight.to(at::kDouble);
  at::Tensor matrices = taps.reshape({kernel.groups, taps.size(0) / kernel.groups, taps.size(1)});
  if (kernel.layout != KernelLayout::output_first) matrices = matrices.transpose(1, 2);
  return matrices.bmm(shift.reshape({kernel.groups, -1, 1})).flatten();
}

}  // namespace

bool is_plain_floating(const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  const bool floating = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16;
  return floating && tensor.layout() == at::kStrided;
}

int64_t Kernel::output_channels() const {
  if (layout == KernelLayout::input_first) return weight.size(1) * groups;
  return weight.size(layout == KernelLayout::output_first ? 0 : 1);
}

int64_t Kernel::input_channels() const {
  return layout == KernelLayout::output_first ? weight.size(1) * groups : weight.size(0);
}

at::Tensor scale_outputs(const Kernel& kernel, const at::Tensor& scale) {
  const at::Tensor expanded = scale.to(kernel.weight.device()).expand({kernel.output_channels()});
  return rounded_product(kernel.weight, beside_weight(kernel, expanded));
}

Kernel scale_and_shift_outputs(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Device device = kernel.weight.device();
  at::Tensor bias = shift.to(device).expand({kernel.output_channels()});
  if (kernel.bias.defined()) bias = bias + scale.to(device) * kernel.bias.to(at::kDouble);
  const at::ScalarType dtype = kernel.bias.defined() ? kernel.bias.scalar_type() : kernel.weight.scalar_type();
  return {scale_outputs(kernel, scale), bias.to(dtype, /*non_blocking=*/false, /*copy=*/true), kernel.layout, kernel.groups};
}

Kernel scale_and_shift_inputs(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Device device = kernel.weight.device();
  const auto expanded = [&](const at::Tensor& values) { return values.to(device).expand({kernel.input_channels()}); };
  Kernel folded = kernel;
  folded.weight = rounded_product(kernel.weight, beside_inputs(kernel, expanded(scale)));
  if (shift.eq(0).all().item<bool>()) return folded;
  at::Tensor bias = shift_response(kernel, expanded(shift));
  if (kernel.bias.defined()) bias = bias + kernel.bias.to(at::kDouble);
  folded.bias = bias.to(kernel.bias.defined() ? kernel.bias.scalar_type() : kernel.weight.scalar_type());
  return folded;
}

Kernel with_identity(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Device device = kernel.weight.device();
  const int64_t channels = kernel.output_channels();
  const at::Tensor weight = kernel.weight.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  at::Tensor middle = weight;  // [O, I/groups], the tap that reads the pixel itself
  while (middle.dim() > 2) middle = middle.select(2, middle.size(2) / 2);
  const at::Tensor outputs = at::arange(channels, at::TensorOptions().dtype(at::kLong).device(device));
  middle.index_put_({outputs, outputs.remainder(kernel.weight.size(1))}, scale.to(device).expand({channels}),
                    /*accumulate=*/true);
  at::Tensor bias = shift.to(device).expand({channels});
  if (kernel.bias.defined()) bias = bias + kernel.bias.to(at::kDouble);
  const at::ScalarType dtype = kernel.bias.defined() ? kernel.bias.scalar_type() : kernel.weight.scalar_type();
  return {weight.to(kernel.weight.scalar_type()), bias.to(dtype, /*non_blocking=*/false, /*copy=*/true), kernel.layout,
          kernel.groups};
}

Kernel sum_of_kernels(const Kernel& kernel, double weight, const Kernel& other, double other_weight) {
  const at::Tensor sum = kernel.weight.to(at::kDouble) * weight;
  at::Tensor middle = sum;
  for (int64_t dimension = 2; dimension < sum.dim(); ++dimension) {
    const int64_t size = other.weight.size(dimension);
    middle = middle.narrow(dimension, (sum.size(dimension) - size) / 2, size);
  }
  middle.add_(other.weight.to(at::kDouble), other_weight);
  at::Tensor bias;
  if (kernel.bias.defined()) bias = kernel.bias.to(at::kDouble) * weight;
  if (other.bias.defined()) {
    const at::Tensor share = other.bias.to(at::kDouble) * other_weight;
    bias = bias.defined() ? bias + share : share;
  }
  const at::ScalarType dtype = kernel.weight.scalar_type();
  return {sum.to(dtype), bias.defined() ? bias.to(dtype) : bias, kernel.layout, kernel.groups};
}

bool left_range(const at::Tensor& before, const at::Tensor& after) {
  // A sum is finite only where every term is, and takes an eighth of the time of asking each.
  if (std::isfinite(after.sum().item<double>())) return false;
  if (after.isfinite().all().item<bool>()) return false;
  return !before.defined() || before.isfinite().all().item<bool>();
}

}  // namespace bnfold::algebra
