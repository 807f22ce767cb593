// What is known of the values of a graph without running it.
#pragma once

#include "graph/parameter_store.h"
#include "knowledge/extents.h"
#include "knowledge/ranks.h"

namespace bnfold {

struct Knowledge {
  const ParameterStore& store;
  const Ranks& ranks;
  const Extents& extents;
};

}  // namespace bnfold
