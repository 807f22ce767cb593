// Measures modules against each other.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <string>
#include <vector>

// What a module costs before and after: the forms in which a program may run it.
struct Variant {
  std::string name;
  torch::jit::Module module;
  std::string unavailable;  // why there is no such module; empty where there is one
};

// The module as it is, after torch.jit.freeze, after torch.jit.optimize_for_inference, folded, and folded and then frozen.
std::vector<Variant> variants_of(const torch::jit::Module& original, const torch::jit::Module& folded);

// The median of some measurements, and the interval that the median of all possible ones lies in with at least 95 % confidence, whatever
// their distribution: between two order statistics that the binomial distribution gives (Conover, Practical Nonparametric Statistics,
// 1999, section 3.2). Fewer than 6 measurements give no such interval, and their range instead.
struct Median {
  double value = 0;
  double low = 0;
  double high = 0;
};
Median median_of(std::vector<double> measured);

// The runs of each module in milliseconds, `runs` rounds in which each is run once, in an order drawn anew, so that what slows the
// machine down slows all of them. Before them some rounds are run that are not measured, in which the executor profiles and optimizes.
// On CUDA inputs each run ends with a synchronization. `before_round` hears the number of each round that is measured, from 0 on.
std::vector<std::vector<double>> time_in_turn(
    std::vector<torch::jit::Module> modules, const std::vector<c10::IValue>& inputs, int runs,
    const std::function<void(int)>& before_round = [](int) {});
