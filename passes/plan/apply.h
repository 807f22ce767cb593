// Changes a graph as a plan says. Asks nothing and cannot refuse.
#pragma once

#include "plan/plan.h"

namespace bnfold {

// Makes the edits of `plan` and takes `norm` out of the graph; `ranks` learns what the graph now checks.
void apply(const Plan& plan, const Norm& norm, ParameterStore& store, Ranks& ranks);

}  // namespace bnfold
