// torch::jit::freeze with every fold before it.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>
#include <vector>

#include "bnfold/bnfold.h"

namespace bnfold {

// bnfold::freeze, with options for the fold. Names in `preserved_attrs` are kept beside forward.
FoldResult freeze(const torch::jit::Module& module, Options options, const c10::optional<std::vector<std::string>>& preserved_attrs,
                  bool optimize_numerics);

}  // namespace bnfold
