// Changes a graph as a plan says. Asks nothing and cannot refuse.
#pragma once

#include <unordered_set>

#include "plan/plan.h"

namespace bnfold {

// Makes the edits of `plan` and takes `norm` out of the graph; `ranks` learns what the graph now checks. Adds the nodes that are gone to `gone`,
// those in their blocks too.
void apply(const Plan& plan, const Norm& norm, ParameterStore& store, Ranks& ranks,
           std::unordered_set<const torch::jit::Node*>& gone);

}  // namespace bnfold
