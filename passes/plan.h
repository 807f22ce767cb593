// Decides how a norm can be folded. Planning changes nothing.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "find_norms.h"
#include "rules/rule.h"

namespace bnfold {

// All that is needed to take one norm out of its graph.
struct Plan {
  torch::jit::Node* norm;
  std::vector<Edit> edits;
  Direction direction;
  std::string into;
  bool needs_contiguous = false;  // what stands in the norm's place is laid out in another order than the norm's output was
};

// The plan for `norm`, or the first obstacle on its way.
std::variant<Plan, Decline> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks);

// "file.py:12" of a node, empty where the module does not tell.
std::string source_of(const torch::jit::Node* node);

}  // namespace bnfold
