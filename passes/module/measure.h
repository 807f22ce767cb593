// The size of a module.
#pragma once

#include "bnfold/report.h"
#include "graph/program.h"

namespace bnfold {

// Elements and bytes of the parameters and buffers of `module`, each tensor counted once, and the nodes of the graphs of `methods`.
Size measure(const torch::jit::Module& module, const std::vector<Program::Method>& methods);

}  // namespace bnfold
