// Turns a module into one inlined graph for each method, with parameters and buffers still attributes.
#pragma once

#include "bnfold/bnfold.h"
#include "graph/program.h"

namespace bnfold {

// A copy of `module` with the methods that `options` keeps, sharing the tensors of `module`. The graphs hold no calls to submodules.
// Throws Error where a preserved attribute does not exist, the module has forward hooks, or TorchScript can't freeze it.
Program flatten(const torch::jit::Module& module, const Options& options);

}  // namespace bnfold
