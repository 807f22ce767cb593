// Finds the norms of a graph and reads what they compute.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <variant>
#include <vector>

#include "algebra/affine.h"
#include "parameter_store.h"
#include "rules/rule.h"

namespace bnfold {

struct Norm {
  torch::jit::Node* node;
  std::string name;                                // dotted path: "layer1.0.bn1"
  std::variant<algebra::Affine, Decline> content;  // what it computes, [C] each, or why that is no affine
  at::ScalarType dtype;                            // of its parameters

  torch::jit::Value* input() const { return node->namedInput("input"); }
};

// Every batch norm of `graph` in the order of the graph, those in inner blocks and forked graphs too.
std::vector<Norm> find_norms(const torch::jit::Graph& graph, const ParameterStore& store);

}  // namespace bnfold
