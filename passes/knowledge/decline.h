// Why something can't be folded.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

#include "bnfold/report.h"

namespace bnfold {

// The reason, the node that stands in the way, and what a user should know about it.
struct Decline {
  Reason reason;
  const torch::jit::Node* node;
  std::string detail;
};

}  // namespace bnfold
