// What a norm and a ReLU cost, and the bounds that a fold may put in their place.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <functional>

#include "families.h"
#include "setting.h"

namespace {

constexpr int64_t kChannels = 128;
constexpr int64_t kSize = 28;

struct Operands {
  at::Tensor weight, bias, mean, variance;  // [C]
  at::Tensor lower, upper;                  // [1, C, 1, 1]
};

struct Bound {
  std::string name;
  std::function<at::Tensor(const at::Tensor&, const Operands&)> apply;
};

// Those that end in an underscore overwrite their input, which a fold lets them do where nobody else reads it.
const std::vector<Bound>& bounds() {
  static const std::vector<Bound> all = {
      {"batch_norm+relu_",
       [](const at::Tensor& x, const Operands& of) {
         return at::batch_norm(x, of.weight, of.bias, of.mean, of.variance, false, 0.1, 1e-5, true).relu_();
       }},
      {"relu", [](const at::Tensor& x, const Operands&) { return x.relu(); }},
      {"maximum", [](const at::Tensor& x, const Operands& of) { return at::maximum(x, of.lower); }},
      {"clamp_min_", [](const at::Tensor& x, const Operands& of) { return x.clamp_min_(of.lower); }},
      {"maximum+clamp_max_",
       [](const at::Tensor& x, const Operands& of) { return at::maximum(x, of.lower).clamp_max_(of.upper); }},
      {"clamp_min_+clamp_max_",
       [](const at::Tensor& x, const Operands& of) { return x.clamp_min_(of.lower).clamp_max_(of.upper); }},
      {"clamp", [](const at::Tensor& x, const Operands& of) { return at::clamp(x, of.lower, of.upper); }},
      {"clamp_", [](const at::Tensor& x, const Operands& of) { return x.clamp_(of.lower, of.upper); }},
  };
  return all;
}

void run(benchmark::State& state, const Bound& bound, const Setting& setting) {
  if (!is_there(setting.device)) return state.SkipWithError("no CUDA device");
  const c10::InferenceMode no_gradients;
  const auto on_device = at::device(setting.device);
  const at::Tensor x = at::randn({setting.batch, kChannels, kSize, kSize}, on_device).contiguous(setting.format);
  const at::Tensor channels = at::rand({kChannels}, on_device);
  const at::Tensor lower = at::randn({1, kChannels, 1, 1}, on_device);
  const Operands operands{channels, channels, channels, channels, lower, lower + 1};
  for (auto _ : state) {
    benchmark::DoNotOptimize(bound.apply(x, operands));
    synchronize(setting.device);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.nbytes()));
}

}  // namespace

void register_bounds() {
  for (const Bound& bound : bounds()) {
    for (const Setting& setting : all_settings()) {
      const std::string title = "bound/" + bound.name + "/" + name_of(setting);
      benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) { run(state, bound, setting); })
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
  }
}
