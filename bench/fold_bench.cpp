// How long a fold takes, beside torch.jit.freeze on the same module, and how much memory its result needs; and how long the module
// takes for images once frozen, and once folded and frozen.
//
//     .venv/bin/python bench/models.py build/models
//     build/bin/bnfold_bench build/models --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//         --benchmark_enable_random_interleaving=true --benchmark_filter='^fold|^freeze'       or     '^latency'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <unordered_set>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "bnfold/bnfold.h"
#include "bnfold/files.h"

namespace {

namespace jit = torch::jit;

// Few, since a frozen module's weights stay in memory as long as the module that it was made of: its methods belong to the same
// compilation unit.
constexpr int64_t kIterations = 2;

// Bytes of the tensors of `result` that do not lie in the storage of a tensor of `original`.
int64_t new_bytes(const jit::Module& original, const jit::Module& result) {
  std::unordered_set<const void*> shared;
  for (const at::Tensor& tensor : original.parameters()) shared.insert(tensor.storage().unsafeGetStorageImpl());
  int64_t bytes = 0;
  for (const at::Tensor& tensor : result.parameters()) {
    if (shared.count(tensor.storage().unsafeGetStorageImpl()) == 0) bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

void fold(benchmark::State& state, const jit::Module& module) {
  for (auto _ : state) benchmark::DoNotOptimize(bnfold::fold(module).module);
  const bnfold::FoldResult result = bnfold::fold(module);
  state.counters["norms"] = static_cast<double>(result.report.folded.size());
  state.counters["new_MB"] = static_cast<double>(new_bytes(module, result.module)) / 1e6;
}

void freeze(benchmark::State& state, const jit::Module& module) {
  for (auto _ : state) benchmark::DoNotOptimize(jit::freeze(module));
}

// A module frozen, and folded and then frozen.
struct Variants {
  jit::Module frozen;
  jit::Module folded;
};

Variants variants_of(const jit::Module& module, at::MemoryFormat format) {
  const jit::Module laid_out = module.deepcopy();
  for (const at::Tensor& parameter : laid_out.parameters()) {
    if (parameter.dim() == 4) parameter.set_data(parameter.contiguous(format));
  }
  return {jit::freeze(laid_out), jit::freeze(bnfold::fold(laid_out).module)};
}

double milliseconds(jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const auto start = std::chrono::steady_clock::now();
  benchmark::DoNotOptimize(module.forward(inputs));
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}

// How long both variants take for a batch of images, one after the other in turn, so that what slows the machine down slows both: the
// counters are medians, `ratio` that of folded by frozen over the pairs. Each repetition has weights at other places in memory.
void latency(benchmark::State& state, const jit::Module& module, int64_t batch, at::MemoryFormat format) {
  const c10::InferenceMode no_gradients;
  const std::vector<c10::IValue> inputs = {at::randn({batch, 3, 224, 224}).contiguous(format)};
  Variants variants = variants_of(module, format);
  for (int run = 0; run < 3; ++run) {
    variants.frozen.forward(inputs);
    variants.folded.forward(inputs);
  }
  std::vector<double> frozen;
  std::vector<double> folded;
  std::vector<double> ratios;
  for (auto _ : state) {
    frozen.push_back(milliseconds(variants.frozen, inputs));
    folded.push_back(milliseconds(variants.folded, inputs));
    ratios.push_back(folded.back() / frozen.back());
  }
  state.counters["frozen_ms"] = median(frozen);
  state.counters["folded_ms"] = median(folded);
  state.counters["ratio"] = median(ratios);
}

void register_latency(const std::string& name, const jit::Module& module) {
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const bool last = format == at::MemoryFormat::ChannelsLast;
    for (const int64_t batch : {1, 8}) {
      const std::string title = fmt::format("latency/{}/{}/batch:{}", name, last ? "channels_last" : "contiguous", batch);
      benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) { latency(state, module, batch, format); })
          ->Unit(benchmark::kMillisecond)
          ->Iterations(batch == 1 ? 15 : 3)
          ->UseRealTime();
    }
  }
}

void register_model(const std::string& path) {
  const jit::Module module = bnfold::load(path);
  const std::string name = std::filesystem::path(path).stem();
  benchmark::RegisterBenchmark(("fold/" + name).c_str(), [module](benchmark::State& state) { fold(state, module); })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(kIterations);
  benchmark::RegisterBenchmark(("freeze/" + name).c_str(), [module](benchmark::State& state) { freeze(state, module); })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(kIterations);
  register_latency(name, module);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::filesystem::path directory = argc > 1 ? argv[1] : "build/models";
  std::vector<std::string> paths;
  if (std::filesystem::is_directory(directory)) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().extension() == ".pt") paths.push_back(entry.path());
    }
  }
  if (paths.empty()) {
    fmt::print(stderr, "bnfold_bench: no models in {}; make them with: .venv/bin/python bench/models.py {}\n", directory.string(),
               directory.string());
    return 2;
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) register_model(path);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
