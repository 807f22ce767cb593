// What bnfold costs and what it saves: how long a fold takes beside torch.jit.freeze on the same module, and how much memory; what the
// operators cost that a fold may put in front of a layer; and how long a module takes for images before and after.
//
//     .venv/bin/python bench/models.py build/models
//     build/bin/bnfold_bench build/models --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//         --benchmark_enable_random_interleaving=true --benchmark_filter='^fold|^freeze'       or     '^bound'       or     '^latency'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "bnfold/files.h"
#include "families.h"

namespace {

std::vector<std::filesystem::path> models_in(const std::filesystem::path& directory, const std::string& extension = ".pt") {
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(directory)) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().extension() == extension) paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::filesystem::path directory = argc > 1 ? argv[1] : "build/models";
  const auto networks = models_in(directory);
  const auto growth = models_in(directory / "growth");
  if (networks.empty() || growth.empty()) {
    fmt::print(stderr, "bnfold_bench: no models in {}; make them with: .venv/bin/python bench/models.py {}\n", directory.string(),
               directory.string());
    return 2;
  }
  for (const auto& path : networks) {
    register_fold(path.stem(), path);
    register_latency(path.stem(), path);
  }
  for (const auto& path : models_in(directory, ".pt2")) register_exported_fold(path.stem(), path);
  for (const auto& path : growth) register_fold("growth/" + path.stem().string(), path);
  register_bounds();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
