// What is known of the values of a graph without running it.
#pragma once

#include "graph/parameter_store.h"
#include "knowledge/asked_ranks.h"
#include "knowledge/extents.h"

namespace bnfold {

// In one attempt to fold a norm.
struct Knowledge {
  const ParameterStore& store;
  const AskedRanks& ranks;
  const Extents& extents;
};

}  // namespace bnfold
