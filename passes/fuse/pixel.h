// Convolutions of a single pixel are linear layers over its channels.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <memory>

#include "fuse/facts.h"

namespace bnfold {

// Computes them so. What is known goes over to the values that replace others.
void use_linear_for_pixels(const std::shared_ptr<torch::jit::Graph>& graph, Facts& facts);

}  // namespace bnfold
