// What an attempt to fold a norm has yet to do.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

#include "algebra/affine.h"

namespace bnfold {

// An affine that is wanted behind a value.
struct Wanted {
  torch::jit::Value* value;
  algebra::Affine affine;
  std::vector<torch::jit::Use> readers;  // that want it; of a branch, which output of it
  bool is_viewed = false;                // whether the norm's input may be the memory of the value
};

// An affine that is missing in a value.
struct Missing {
  torch::jit::Value* value;
  algebra::Affine affine;
};

// Takes away the last of them in the order of the graph.
Wanted take_last(std::vector<Wanted>& all);

// Takes away the first of them in the order of the graph.
Missing take_first(std::vector<Missing>& all);

}  // namespace bnfold
