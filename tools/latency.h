// Measures two modules against each other.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <vector>

struct Latency {
  double original_ms = 0;  // median
  double folded_ms = 0;
};

// Runs both modules in turn, `runs` times each after a warm-up, in one process, and gives the median of each. On CUDA inputs each run
// ends with a synchronization.
Latency latency(torch::jit::Module original, torch::jit::Module folded, const std::vector<c10::IValue>& inputs, int runs);
