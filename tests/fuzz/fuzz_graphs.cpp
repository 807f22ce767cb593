// Folds graphs that are drawn at random, until one breaks a property of properties.h: it is shrunk, and printed as a test.
//
//     fuzz_graphs 10000                  new ones in every run
//     fuzz_graphs --seed 7 500           the same ones in every run: seeds 7 to 506
#include <fmt/format.h>

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <random>

#include "generate_graph.h"
#include "properties.h"

namespace {

using namespace bnfold;
using Bytes = std::vector<uint8_t>;

Bytes random_bytes(uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(100 + random() % 500);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

fuzz::IrProgram program_of(const Bytes& bytes) {
  fuzz::Choices choices(bytes);
  return fuzz::generate_graph(choices);
}

bool still_breaks(const Bytes& bytes, const std::string& property) {
  return fuzz::check(program_of(bytes)).broken == property;
}

// Without runs of bytes, longer ones first, and with each byte as small as it can be.
Bytes once_shrunk(Bytes bytes, const std::string& property) {
  const auto take = [&](const Bytes& simpler) {
    const bool breaks = still_breaks(simpler, property);
    if (breaks) bytes = simpler;
    return breaks;
  };
  for (size_t length = bytes.size() / 2; length > 0; length /= 2) {
    for (size_t start = 0; start + length <= bytes.size();) {
      Bytes shorter(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(start));
      shorter.insert(shorter.end(), bytes.begin() + static_cast<std::ptrdiff_t>(start + length), bytes.end());
      if (!take(shorter)) start += length;
    }
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int smaller : {0, 1, bytes[i] / 2}) {
      Bytes simpler = bytes;
      simpler[i] = static_cast<uint8_t>(smaller);
      if (smaller < bytes[i] && take(simpler)) break;
    }
  }
  return bytes;
}

Bytes shrunk(Bytes bytes, const std::string& property) {
  fuzz::Choices choices(bytes);
  fuzz::generate_graph(choices);
  bytes.resize(choices.used());
  while (true) {
    Bytes simpler = once_shrunk(bytes, property);
    if (simpler == bytes) return bytes;
    bytes = std::move(simpler);
  }
}

struct Tally {
  int graphs = 0;
  int refused_by_torch = 0;
  int rank_checked = 0;
  std::map<std::string, int> refused;
  std::map<std::string_view, int> folded;
  std::map<std::string_view, int> kept;
  int scales = 0;
  int merged = 0;

  void add(const fuzz::Outcome& outcome) {
    ++graphs;
    refused_by_torch += outcome.runs ? 0 : 1;
    rank_checked += outcome.rank_checked ? 1 : 0;
    if (!outcome.refusal.empty()) ++refused[outcome.refusal];
    for (const FoldedNorm& norm : outcome.report.folded) ++folded[name(norm.direction)];
    for (const KeptNorm& norm : outcome.report.kept) ++kept[name(norm.reason)];
    scales += static_cast<int>(outcome.report.scales.size());
    merged += static_cast<int>(outcome.report.merged.size());
  }

  void print() const {
    fmt::print(
        "{} graphs, {} of which torch can't run or does not run as written, {} with a rank that the folded module refused\n",
        graphs, refused_by_torch, rank_checked);
    for (const auto& [direction, count] : folded) fmt::print("{:7} norms folded {}\n", count, direction);
    fmt::print("{:7} scales folded\n{:7} convolutions merged\n", scales, merged);
    for (const auto& [reason, count] : kept) fmt::print("{:7} norms kept: {}\n", count, reason);
    for (const auto& [sentence, count] : refused) fmt::print("{:7} not folded: {}\n", count, sentence);
  }
};

void print_failure(const Bytes& bytes, uint64_t seed) {
  const fuzz::IrProgram program = program_of(bytes);
  const fuzz::Outcome outcome = fuzz::check(program);
  fmt::print("broken: {}\n{}\nagain: fuzz_graphs --seed {} 1\n\n{}EXPECT_EQ(check(program).broken, \"\");\n", outcome.broken,
             outcome.detail, seed, fuzz::as_code(program));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Folds graphs that are drawn at random, and stops at the first that is not folded as it should be.");
  uint64_t seed = std::random_device()();
  int count = 0;
  app.add_option("--seed", seed, "of the first graph; the next one has the next seed");
  app.add_option("count", count, "how many graphs")->required();
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  Tally tally;
  for (uint64_t current = seed; tally.graphs < count; ++current) {
    const Bytes bytes = random_bytes(current);
    const fuzz::Outcome outcome = fuzz::check(program_of(bytes));
    if (!outcome.broken.empty()) {
      fmt::print(stderr, "seed {} breaks: {} ({}); shrinking it\n", current, outcome.broken, outcome.detail);
      print_failure(shrunk(bytes, outcome.broken), current);
      return 1;
    }
    tally.add(outcome);
  }
  tally.print();
  return 0;
}
