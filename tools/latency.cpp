#include "latency.h"

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "text.h"

namespace jit = torch::jit;

namespace {

// The executor profiles on the first run and optimizes on the second.
constexpr int kWarmUp = 5;

double timed_ms(jit::Module& module, const std::vector<c10::IValue>& inputs, bool on_cuda) {
  const auto start = std::chrono::steady_clock::now();
  module.forward(inputs);
  if (on_cuda) at::detail::getCUDAHooks().deviceSynchronize(0);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

template <typename Make>
Variant variant(const std::string& name, const Make& make) {
  try {
    return {name, make(), ""};
  } catch (const c10::Error& error) {
    return {name, jit::Module(), first_line(error.what_without_backtrace())};
  }
}

// How many of the smallest runs lie below the interval: the largest n with P(X <= n) <= 2.5 %, X being the heads among `runs` coins.
size_t left_out(size_t runs) {
  const auto count = static_cast<double>(runs);
  double cumulative = 0;
  for (size_t n = 0;; ++n) {
    const auto heads = static_cast<double>(n);
    const double log_ways = std::lgamma(count + 1) - std::lgamma(heads + 1) - std::lgamma(count - heads + 1);
    cumulative += std::exp(log_ways - count * std::log(2));
    if (cumulative > 0.025) return n == 0 ? 0 : n - 1;
  }
}

}  // namespace

std::vector<Variant> variants_of(const jit::Module& original, const jit::Module& folded) {
  return {
      {"original", original, ""},
      variant("torch.jit.freeze", [&] { return jit::freeze(original); }),
      variant("torch.jit.optimize_for_inference",
              [&] {
                jit::Module copy = original.deepcopy();
                return jit::optimize_for_inference(copy);
              }),
      {"folded", folded, ""},
      variant("folded, frozen", [&] { return jit::freeze(folded); }),
  };
}

Median median_of(std::vector<double> measured) {
  std::sort(measured.begin(), measured.end());
  const size_t count = measured.size();
  const size_t outside = left_out(count);
  const double median = (measured[(count - 1) / 2] + measured[count / 2]) / 2;
  return {median, measured[outside], measured[count - 1 - outside]};
}

std::vector<std::vector<double>> time_in_turn(std::vector<jit::Module> modules, const std::vector<c10::IValue>& inputs, int runs,
                                              const std::function<void(int)>& before_round) {
  const at::NoGradGuard no_grad;
  const bool on_cuda = std::any_of(inputs.begin(), inputs.end(),
                                   [](const c10::IValue& input) { return input.isTensor() && input.toTensor().is_cuda(); });
  std::vector<std::vector<double>> times(modules.size());
  std::vector<size_t> order(modules.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random;  // NOLINT(bugprone-random-generator-seed): in each run of the program the same orders
  for (int run = -kWarmUp; run < runs; ++run) {
    if (run >= 0) before_round(run);
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      const double time = timed_ms(modules[i], inputs, on_cuda);
      if (run >= 0) times[i].push_back(time);
    }
  }
  return times;
}
