#include "module/clean_up.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

namespace bnfold {

void clean_up(Program& program) {
  // With the graph, not the block alone: only then is it seen that a norm that trains writes its statistics.
  for (Program::Method& method : program.methods) torch::jit::EliminateDeadCode(method.graph);
}

}  // namespace bnfold
