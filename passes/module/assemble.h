// Makes a module of a flattened and folded program.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include "graph/parameter_store.h"
#include "graph/program.h"

namespace bnfold {

// A new module with the methods of `program` and just the attributes that they read, under the names they had; no two of its
// submodules share a class, so each has exactly what it needs. A tensor that was added takes the name it would like, or that name
// with a number where something else still has it. Parameters share storage with those of `program`, unless they are written; buffers are
// copied. What was one submodule, list, dict, object or memory under several names is one in the new module; a submodule becomes several
// where its norms fold differently.
// Throws Error where a graph uses a submodule in another way than reading or assigning its attributes, writes into what a list holds that
// shares its memory with a parameter or buffer, or assigns attributes of a submodule that becomes several.
torch::jit::Module assemble(const Program& program, const ParameterStore& store);

}  // namespace bnfold
