// Whether a program may write into tensors that its module holds in lists, dicts or objects.
#pragma once

#include "graph/parameter_store.h"
#include "graph/program.h"

namespace bnfold {

// What the graphs write into is followed back to where it was made: an operator that makes new memory, an input, or an attribute of a
// module. Everything else may be an element.
bool may_write_elements(const Program& program, const ParameterStore& store);

}  // namespace bnfold
