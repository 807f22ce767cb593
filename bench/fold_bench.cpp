// How long a fold takes, and how much memory, beside torch.jit.freeze on the same module and a copy of its graph.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>

#include <malloc.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <unordered_set>
#include <vector>

#include "bnfold/bnfold.h"
#include "bnfold/exported.h"
#include "bnfold/files.h"
#include "families.h"

namespace {

namespace jit = torch::jit;

// Few, since a frozen module's weights stay in memory as long as the module that it was made of: its methods belong to the same
// compilation unit.
constexpr int64_t kIterations = 2;

std::vector<at::Tensor> tensors_of(const jit::Module& module) {
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& parameter : module.parameters()) tensors.push_back(parameter);
  return tensors;
}

std::vector<at::Tensor> tensors_of(const bnfold::ExportedProgram& program) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : program.tensors) tensors.push_back(tensor);
  return tensors;
}

// Megabytes of the tensors of `result` that do not lie in the storage of a tensor of `original`.
double new_mb(const std::vector<at::Tensor>& original, const std::vector<at::Tensor>& result) {
  std::unordered_set<const void*> shared;
  for (const at::Tensor& tensor : original) shared.insert(tensor.storage().unsafeGetStorageImpl());
  size_t bytes = 0;
  for (const at::Tensor& tensor : result) {
    if (shared.count(tensor.storage().unsafeGetStorageImpl()) == 0) bytes += tensor.nbytes();
  }
  return static_cast<double>(bytes) / 1e6;
}

// A line of /proc/self/status in MB: VmRSS, the memory that the process has, or VmHWM, the most that it had.
double status_mb(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::stod(line.substr(field.size() + 1)) * 1024 / 1e6;
  }
  return 0;
}

// How much more memory the process had at most while `work` ran than before; 0 where the system doesn't tell.
template <typename Work>
double peak_mb(const Work& work) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM begins anew
  const double before = status_mb("VmRSS:");
  work();
  return status_mb("VmHWM:") - before;
}

void count_norms(benchmark::State& state, size_t norms) {
  using benchmark::Counter;
  state.counters["norms"] = static_cast<double>(norms);
  state.counters["s_per_norm"] = Counter(static_cast<double>(norms), Counter::kIsIterationInvariantRate | Counter::kInvert);
}

// What no pass can do without that leaves the module that came in alone: LibTorch makes a graph like that of the result.
void copy(benchmark::State& state, const std::string& path) {
  const bnfold::FoldResult result = bnfold::fold(bnfold::load(path));
  const auto graph = result.module.get_method("forward").graph();
  for (auto _ : state) benchmark::DoNotOptimize(graph->copy());
  count_norms(state, result.report.folded.size());
}

void fold(benchmark::State& state, const std::string& path) {
  const jit::Module module = bnfold::load(path);
  bnfold::FoldResult result{module, {}};
  state.counters["peak_MB"] = peak_mb([&] { result = bnfold::fold(module); });
  for (auto _ : state) benchmark::DoNotOptimize(bnfold::fold(module).module);
  state.counters["new_MB"] = new_mb(tensors_of(module), tensors_of(result.module));
  count_norms(state, result.report.folded.size());
}

void fold_exported(benchmark::State& state, const std::string& path) {
  const bnfold::ExportedProgram program = bnfold::load_exported(path);
  bnfold::ExportedFoldResult result;
  state.counters["peak_MB"] = peak_mb([&] { result = bnfold::fold(program); });
  for (auto _ : state) benchmark::DoNotOptimize(bnfold::fold(program).program);
  state.counters["new_MB"] = new_mb(tensors_of(program), tensors_of(result.program));
  count_norms(state, result.report.folded.size());
}

void files_exported(benchmark::State& state, const std::string& path) {
  const std::string out = std::filesystem::temp_directory_path() / "bnfold_bench.pt2";
  for (auto _ : state) bnfold::save(bnfold::load_exported(path), out);
  std::filesystem::remove(out);
}

void freeze(benchmark::State& state, const std::string& path) {
  const jit::Module module = bnfold::load(path);
  state.counters["peak_MB"] = peak_mb([&] { benchmark::DoNotOptimize(jit::freeze(module)); });
  for (auto _ : state) benchmark::DoNotOptimize(jit::freeze(module));
  count_norms(state, bnfold::fold(module).report.folded.size());
}

void add(const std::string& name, void (*run)(benchmark::State&, const std::string&), const std::string& path) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, path); })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(kIterations);
}

}  // namespace

void register_fold(const std::string& name, const std::string& path) {
  add("fold/" + name, fold, path);
  add("freeze/" + name, freeze, path);
  add("copy/" + name, copy, path);
}

void register_exported_fold(const std::string& name, const std::string& path) {
  add("fold_exported/" + name, fold_exported, path);
  add("files_exported/" + name, files_exported, path);
}
