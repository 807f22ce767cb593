// Removes what a fold left behind.
#pragma once

#include "graph/program.h"

namespace bnfold {

// Drops the nodes that nothing reads. A write that LibTorch's passes don't see stays, though what was all that read it may be gone.
void clean_up(Program& program);
void clean_up(const std::shared_ptr<torch::jit::Graph>& graph);

}  // namespace bnfold
