#include "module/clean_up.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include "module/hidden_writes.h"

namespace bnfold {

void clean_up(Program& program) {
  // What is made, is made before anything goes: the parameter store knows values by their addresses, which are taken again.
  for (Program::Method& method : program.methods) read_hidden_writes(*method.graph);
  // With the graph, not the block alone: only then is it seen that a norm that trains writes its statistics.
  for (Program::Method& method : program.methods) {
    guard_hidden_writes(*method.graph);
    torch::jit::EliminateDeadCode(method.graph);
    release_hidden_writes(*method.graph);
  }
}

}  // namespace bnfold
