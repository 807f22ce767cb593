// What a run of a module on example inputs must not change: the module, the inputs, and the random numbers of its caller.
#pragma once

#include <ATen/core/Generator.h>
#include <torch/csrc/jit/api/module.h>

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "bnfold/check.h"
#include "report/sentence.h"

namespace bnfold {

// Runs a task of the module to its end in the thread that begins it. In one of its own it may still run when nobody waits for it and the
// copy that it reads is gone, and it draws its random numbers when it likes.
inline void launch_here(const std::function<void()>& task) {
  task();
}

// Puts the random generators back into the state they were in.
class RandomState {
 public:
  RandomState();
  ~RandomState();

  RandomState(const RandomState&) = delete;
  RandomState& operator=(const RandomState&) = delete;

 private:
  std::vector<at::Generator> generators_;
  std::vector<at::Tensor> states_;
};

// Copies a module but for parameters that nothing writes: running it may count, cache or train, and others may run the one that came in
// meanwhile.
torch::jit::Module copy_to_run(const torch::jit::Module& module);

// What `run` returns. Where it fails, throws what `error_of` makes of the sentence that says why.
template <typename Run, typename MakeError>
auto run_or_throw(const Run& run, const MakeError& error_of) try {
  return run();
} catch (const c10::Error& error) {
  throw error_of(first_sentence(error.what_without_backtrace()));
} catch (const std::exception& error) {
  throw error_of(first_sentence(error.what()));
}

// Of a module that can't run on what its caller gave.
InputError input_error(const std::string& sentence);

// What forward of `module` returns for `inputs`, which it gets copies of.
c10::IValue run_forward(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs);

// What forward of `module` is called with, self left out: copies of `inputs`, and the default values of what they leave out.
std::vector<c10::IValue> arguments_to_run(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs);

}  // namespace bnfold
