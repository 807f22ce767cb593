// The primitives that compute what calls of LibTorch's operators compute, for inputs of known sizes.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

#include "onednn/description.h"
#include "onednn/steps.h"

namespace bnfold::onednn {

struct Input {
  Sizes sizes;
  Order order;
};

// Nothing where one of the calls has no primitive that gives the same for these sizes, among them those that the operator refuses.
std::optional<Description> lower(const Steps& steps, const std::vector<Input>& inputs);

// Whether oneDNN has a kernel for a convolution with this weight [O, I/groups, ...]. The others it computes as products of matrices, slower than LibTorch
// does, and beside LibTorch they fail: "could not execute a primitive".
bool has_kernel(const Sizes& weight, int64_t groups);

// Whether there are primitives for this operator at all. Its overload decides, and nothing of its arguments.
bool can_be_lowered(const torch::jit::Node* node);

}  // namespace bnfold::onednn
