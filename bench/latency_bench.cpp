// How long a network takes for images once frozen, and once folded and frozen.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "bnfold/bnfold.h"
#include "bnfold/files.h"
#include "families.h"
#include "latency.h"
#include "setting.h"

namespace {

namespace jit = torch::jit;

jit::Module laid_out(const std::string& path, const Setting& setting) {
  jit::Module module = bnfold::load(path);
  module.to(at::Device(setting.device));
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.dim() == 4) parameter.set_data(parameter.contiguous(setting.format));
  }
  return module;
}

// The counters are medians, `ratio` that of folded by frozen over the pairs. Each repetition has weights at other places in memory.
void latency(benchmark::State& state, const std::string& path, const Setting& setting) {
  if (!is_there(setting.device)) return state.SkipWithError("no CUDA device");
  const c10::InferenceMode no_gradients;
  const jit::Module module = laid_out(path, setting);
  const std::vector<c10::IValue> inputs = {at::randn({setting.batch, 3, 224, 224}).to(setting.device).contiguous(setting.format)};
  const std::vector<jit::Module> modules = {jit::freeze(module), jit::freeze(bnfold::fold(module).module)};
  const int runs = setting.batch == 1 ? 15 : 3;
  for (auto _ : state) {
    const auto times = time_in_turn(modules, inputs, runs);
    std::vector<double> ratios;
    ratios.reserve(runs);
    for (int i = 0; i < runs; ++i) ratios.push_back(times[1][i] / times[0][i]);
    state.counters["frozen_ms"] = median_of(times[0]).value;
    state.counters["folded_ms"] = median_of(times[1]).value;
    state.counters["ratio"] = median_of(ratios).value;
  }
}

}  // namespace

void register_latency(const std::string& name, const std::string& path) {
  for (const Setting& setting : all_settings()) {
    const std::string title = "latency/" + name + "/" + name_of(setting);
    benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) { latency(state, path, setting); })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(1)
        ->UseRealTime();
  }
}
