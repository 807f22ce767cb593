// Makes constants of the attributes that never change: numbers, flags, strings, None, tuples and lists of these; and of the question
// whether a key is in a dict that never changes.
#pragma once

#include "graph/program.h"

namespace bnfold {

// Replaces the reads of such attributes, and of those of submodules, by constants. What a graph of `program` assigns or writes in place,
// or what the user preserves, stays a read. Tensors stay attributes.
void make_constants_of_fixed_values(Program& program);

}  // namespace bnfold
