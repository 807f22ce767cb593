// The fold as a picture, whatever the graphs come from.
#pragma once

#include <string>

#include "bnfold/report.h"
#include "graph/program.h"

namespace bnfold {

// Text for Graphviz, as include/bnfold/graphviz.h describes it.
std::string drawn(Program original, Program folded, const Report& report);

}  // namespace bnfold
