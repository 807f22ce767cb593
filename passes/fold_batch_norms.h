// bnfold::fold for a module that stays in LibTorch.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include "bnfold/bnfold.h"

namespace bnfold {

// bnfold::fold of what LibTorch is to freeze and run: what a fold adds is made for speed there, and not for what else may read it.
FoldResult fold_before_freezing(const torch::jit::Module& module, const Options& options);

}  // namespace bnfold
