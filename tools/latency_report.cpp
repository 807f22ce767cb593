#include "latency_report.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "latency.h"

nlohmann::ordered_json latency_report(const torch::jit::Module& original, const torch::jit::Module& folded,
                                      const std::vector<c10::IValue>& inputs, int runs,
                                      const std::function<void(int)>& before_round) {
  const std::vector<Variant> variants = variants_of(original, folded);
  std::vector<torch::jit::Module> modules;
  for (const Variant& variant : variants) {
    if (variant.unavailable.empty()) modules.push_back(variant.module);
  }
  const auto times = time_in_turn(modules, inputs, runs, before_round);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  size_t next = 0;
  for (const Variant& variant : variants) {
    nlohmann::ordered_json row = {{"name", variant.name}};
    if (variant.unavailable.empty()) {
      const Median median = median_of(times[next++]);
      row.update({{"median_ms", median.value}, {"low_ms", median.low}, {"high_ms", median.high}});
    } else {
      row["unavailable"] = variant.unavailable;
    }
    rows.push_back(row);
  }
  return {{"runs", runs}, {"threads", at::get_num_threads()}, {"variants", rows}};
}

std::string latency_table(const nlohmann::ordered_json& latency) {
  const int threads = latency["threads"].get<int>();
  const int runs = latency["runs"].get<int>();
  std::string text =
      fmt::format("{:<38} {:>13}   {:<19}{} runs in turn, {}\n", "latency", "median", runs < 6 ? "range" : "95 % interval", runs,
                  threads == 1 ? "1 thread" : fmt::format("{} threads", threads));
  for (const auto& row : latency["variants"]) {
    text += fmt::format("  {:<36} ", row["name"].get<std::string>());
    if (row.contains("unavailable")) {
      text += fmt::format("not measured: {}\n", row["unavailable"].get<std::string>());
    } else {
      text += fmt::format("{:>10.2f} ms   {:.2f} – {:.2f}\n", row["median_ms"].get<double>(), row["low_ms"].get<double>(),
                          row["high_ms"].get<double>());
    }
  }
  return text;
}
