// bnfold::fold, and the same for a module that stays in LibTorch.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <vector>

#include "bnfold/bnfold.h"

namespace bnfold {

// bnfold::fold, where a run on `example_inputs`, the arguments of forward, tells the ranks of what the module computes; none are needed.
FoldResult fold_as_observed(const torch::jit::Module& module, const Options& options,
                            const std::vector<c10::IValue>& example_inputs);

// The same of what LibTorch is to freeze and run: what a fold adds is made for speed there, and not for what else may read it.
FoldResult fold_before_freezing(const torch::jit::Module& module, const Options& options,
                                const std::vector<c10::IValue>& example_inputs = {});

}  // namespace bnfold
