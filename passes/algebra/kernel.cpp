#include "algebra/kernel.h"

namespace bnfold::algebra {

namespace {

// `scale` [O] in the shape that broadcasts against the weight, after input_first weights are seen as [groups, I/groups, O/groups, ...].
at::Tensor beside_weight(const Kernel& kernel, const at::Tensor& scale) {
  std::vector<int64_t> shape(kernel.weight.dim(), 1);
  switch (kernel.layout) {
    case KernelLayout::output_first:
      shape[0] = -1;
      return scale.reshape(shape);
    case KernelLayout::output_last:
      shape[1] = -1;
      return scale.reshape(shape);
    case KernelLayout::input_first:
      shape[0] = kernel.groups;
      shape[1] = kernel.weight.size(1);
      return scale.reshape(shape).repeat_interleave(kernel.weight.size(0) / kernel.groups, 0);
  }
  TORCH_INTERNAL_ASSERT(false, "unknown kernel layout");
}

}  // namespace

int64_t Kernel::output_channels() const {
  switch (layout) {
    case KernelLayout::output_first:
      return weight.size(0);
    case KernelLayout::output_last:
      return weight.size(1);
    case KernelLayout::input_first:
      return weight.size(1) * groups;
  }
  TORCH_INTERNAL_ASSERT(false, "unknown kernel layout");
}

at::Tensor scale_outputs(const Kernel& kernel, const at::Tensor& scale) {
  const at::Tensor expanded = scale.to(kernel.weight.device()).expand({kernel.output_channels()});
  return kernel.weight.to(at::kDouble).mul(beside_weight(kernel, expanded)).to(kernel.weight.scalar_type());
}

Kernel scale_and_shift_outputs(const Kernel& kernel, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Device device = kernel.weight.device();
  at::Tensor bias = shift.to(device).expand({kernel.output_channels()});
  if (kernel.bias.defined()) bias = bias + scale.to(device) * kernel.bias.to(at::kDouble);
  const at::ScalarType dtype = kernel.bias.defined() ? kernel.bias.scalar_type() : kernel.weight.scalar_type();
  return {scale_outputs(kernel, scale), bias.to(dtype).contiguous(), kernel.layout, kernel.groups};
}

bool left_range(const at::Tensor& before, const at::Tensor& after) {
  if (after.isfinite().all().item<bool>()) return false;
  return !before.defined() || before.isfinite().all().item<bool>();
}

}  // namespace bnfold::algebra
