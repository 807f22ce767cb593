// What every test of a fold checks, without asking: the values, the state, the module that came in.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>
#include <vector>

#include "bnfold/bnfold.h"

namespace bnfold::test {

using Inputs = std::vector<c10::IValue>;

// Options for a module whose only input has this rank.
Options with_rank(int64_t rank);

// Folds `module` and expects that the norm `name` went into `into`: it is gone from graph and state, three runs agree with a
// reference in double, and the module that came in is bit for bit what it was. Returns the result for more.
FoldResult expect_folded(const torch::jit::Module& module, const Inputs& inputs, const std::string& name, const std::string& into,
                         const Options& options = {});

// Folds `module` and expects that the norm `name` stayed for `reason`, with `detail` in what the report says: its values and all
// tensors are unchanged.
FoldResult expect_kept(const torch::jit::Module& module, const Inputs& inputs, const std::string& name, Reason reason,
                       const std::string& detail = "", const Options& options = {});

// Folds `module` and expects that the norm `name` stayed and that `reason` stopped it on the way `way`, as "forward", with
// `detail` in what the report says of that way.
FoldResult expect_stopped(const torch::jit::Module& module, const Inputs& inputs, const std::string& name, const std::string& way,
                          Reason reason, const std::string& detail = "", const Options& options = {});

// Folds `module`, whatever becomes of its norms, and expects the same values.
FoldResult expect_unharmed(const torch::jit::Module& module, const Inputs& inputs, const Options& options = {});

// Expects that both modules return the same on `inputs`, compared in double with `original` as the reference, three runs.
void expect_same_output(const torch::jit::Module& original, const torch::jit::Module& folded, const Inputs& inputs);

// Expects that both modules return tensors of the same dtypes and sizes on `inputs` as they are, and that the values of `folded` differ
// from those of `original` in double by no more than `allowed` of the largest of these. An old LibTorch can't run half on the CPU; then nothing
// is compared.
void expect_same_output_in_own_dtype(const torch::jit::Module& original, const torch::jit::Module& folded, const Inputs& inputs,
                                     double allowed);

// How many nodes of kind "aten::batch_norm" there are in the graphs of the module's methods.
int64_t count_nodes(const torch::jit::Module& module, const std::string& kind);

// The names of all parameters and buffers.
std::vector<std::string> state_names(const torch::jit::Module& module);

}  // namespace bnfold::test
