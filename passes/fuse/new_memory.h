// Which memory is surely nobody else's.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Whether each output of the operator is memory that it makes itself, whatever its inputs are. Of an operator that is not known to, nothing
// is sure: its schema may not tell that it returns what it was given, as einsum, wait and dequantize may.
bool makes_new_memory(const torch::jit::Node* node);

}  // namespace bnfold
