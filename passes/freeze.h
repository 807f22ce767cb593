// torch::jit::freeze with every fold before it.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <string>
#include <vector>

#include "bnfold/bnfold.h"

namespace bnfold {

// bnfold::freeze, with options for the fold. Names in `preserved_attrs` are kept beside forward.
FoldResult freeze(const torch::jit::Module& module, Options options,
                  const c10::optional<std::vector<std::string>>& preserved_attrs, bool optimize_numerics);

// What torch::jit::freeze does to the numbers of a frozen method, but for its folds of norms: those that bnfold keeps it takes into a layer
// all the same, whether they train or not, and into a linear layer along whatever dimension. Where dtypes are mixed nothing is done: it
// would narrow a result to the dtype of its convolution.
void fold_sums_and_products(std::shared_ptr<torch::jit::Graph> graph);

}  // namespace bnfold
