#include "clean_up.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

namespace bnfold {

void clean_up(Program& program) {
  for (Program::Method& method : program.methods) torch::jit::EliminateDeadCode(method.graph->block());
}

}  // namespace bnfold
