// What --bench reports.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

// Measures each variant of the module, `runs` runs of each in turn: {"runs", "threads", "variants": [{"name", "median_ms", "low_ms",
// "high_ms"}]}, where a variant that can't be had has "unavailable", the reason, in place of figures. `before_round` hears
// the number of each round, from 0 on.
nlohmann::ordered_json latency_report(const torch::jit::Module& original, const torch::jit::Module& folded,
                                      const std::vector<c10::IValue>& inputs, int runs,
                                      const std::function<void(int)>& before_round);

// The same as lines for a person.
std::string latency_table(const nlohmann::ordered_json& latency);
