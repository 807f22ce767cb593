// Compares a folded module with its original on given inputs.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <string>
#include <vector>

#include "bnfold/bnfold.h"

namespace bnfold {

// The module that came in can't run on an input that was given for the check.
class InputError : public Error {
 public:
  using Error::Error;
};

struct CheckResult {
  int inputs = 0;            // how many input tuples were tried
  double largest_error = 0;  // over all inputs and outputs: max |original - folded| / max |original|, both of one output tensor
  double tolerance = 0;      // the one that belongs to the worst output's dtype, or what the rounding of the original allows
  std::string worst_output;  // where the largest error was: "output", "output[1]", "output['out']"
  bool passed = false;       // every output within the tolerance
};

// The largest relative error that rounding can explain in a deep network of this dtype; docs/checking.md derives it.
double tolerance(at::ScalarType dtype);

// Runs both modules on each tuple of inputs and compares every tensor in their outputs, inside tuples, lists and dicts too. Inputs are
// cloned for each run, so a module that writes into its input is compared fairly; random operators see the same generator state.
// Copies of the modules are run, which share the parameters; the random generators are afterwards what they were.
//
// Where an output is off by more than the tolerance of its dtype, the original is run in double too: if its own outputs are off by so much
// from these, and those of `folded` by no more than 2.5 times that, the difference is rounding and passes.
//
// NaN equals NaN, infinity equals infinity of the same sign. Throws InputError where the original
// can't run on an input, Error where there is no input or only the folded module can't run on one.
CheckResult check(const torch::jit::Module& original, const torch::jit::Module& folded,
                  const std::vector<std::vector<c10::IValue>>& inputs);

// The same on `count` tuples of inputs, of which one is held at a time: make_inputs(0), make_inputs(1) and so on.
CheckResult check(const torch::jit::Module& original, const torch::jit::Module& folded, int count,
                  const std::function<std::vector<c10::IValue>(int)>& make_inputs);

}  // namespace bnfold
