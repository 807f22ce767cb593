#include "latency.h"

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <chrono>

namespace {

// The executor profiles on the first run and optimizes on the second.
constexpr int kWarmUp = 5;

double timed_ms(torch::jit::Module& module, const std::vector<c10::IValue>& inputs, bool on_cuda) {
  const auto start = std::chrono::steady_clock::now();
  module.forward(inputs);
  if (on_cuda) at::detail::getCUDAHooks().deviceSynchronize(0);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Latency latency(torch::jit::Module original, torch::jit::Module folded, const std::vector<c10::IValue>& inputs, int runs) {
  const at::NoGradGuard no_grad;
  const bool on_cuda = std::any_of(inputs.begin(), inputs.end(),
                                   [](const c10::IValue& input) { return input.isTensor() && input.toTensor().is_cuda(); });
  std::vector<double> before;
  std::vector<double> after;
  for (int run = -kWarmUp; run < runs; ++run) {
    const double original_ms = timed_ms(original, inputs, on_cuda);
    const double folded_ms = timed_ms(folded, inputs, on_cuda);
    if (run < 0) continue;
    before.push_back(original_ms);
    after.push_back(folded_ms);
  }
  return {median(before), median(after)};
}
