// Removes what a fold left behind.
#pragma once

#include "graph/program.h"

namespace bnfold {

// Drops the nodes that nothing reads.
void clean_up(Program& program);

}  // namespace bnfold
