// Names of attributes.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>

namespace bnfold {

// The name, or it with a number behind, of which `module` has no attribute and no method yet.
std::string free_attribute(const torch::jit::Module& module, const std::string& name);

}  // namespace bnfold
