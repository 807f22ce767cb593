// Operators that overwrite what they read: away before planning, which wants values that nothing writes, and back again behind it.
//
//   before   u --> relu_ --> y          planned   u --> relu --> y          after   u --> relu_ --> y, where that is proven
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstddef>
#include <set>
#include <utility>

#include "graph/parameter_store.h"

namespace bnfold {

// Values by their graph and their number in it, which no other value gets, while the address of a value that is gone may be taken again.
using ValueNumbers = std::set<std::pair<const torch::jit::Graph*, size_t>>;

// What overwrites memory that nobody else sees makes new memory instead. Returns what is made so now. What is left writes into memory that
// others may see, or would give another dtype.
ValueNumbers use_new_memory(torch::jit::Graph& graph, const ParameterStore& store);

// What reads new memory last overwrites it: of what makes a value of `before`, which did so once, and with `bounds_too` of the bounds that a fold
// added beside a norm.
void reuse_memory(torch::jit::Graph& graph, const ParameterStore& store, const ValueNumbers& before, bool bounds_too);

}  // namespace bnfold
