// What a rule is: the answer of one family of operators to an affine that wants to move from its output to its inputs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "algebra/affine.h"
#include "bnfold/report.h"
#include "parameter_store.h"
#include "ranks.h"

namespace bnfold {

// An affine behind the first output of `node`. What a rule sees; it reads and changes nothing.
struct Site {
  torch::jit::Node* node;
  const algebra::Affine& affine;  // has the rank of the output
  at::ScalarType norm_dtype;      // of the norm's parameters
  const ParameterStore& store;
  const Ranks& ranks;
};

// Input `input` of `node` becomes a static tensor, beside the static value `beside` under `name`; read through aten::t where `transposed`.
struct SetInput {
  torch::jit::Node* node;
  size_t input;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
  bool transposed = false;
};

// The first output of `node` gets a static tensor added, beside the static value `beside` under `name`.
struct AddToOutput {
  torch::jit::Node* node;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
};

// The graph raises an error before `node` unless `value` has `rank`.
struct RequireRank {
  torch::jit::Node* node;
  torch::jit::Value* value;
  int64_t rank;
};

using Edit = std::variant<SetInput, AddToOutput, RequireRank>;

// The operator takes the affine in: the edits that do so, and the dotted path of the layer.
struct Absorb {
  std::vector<Edit> edits;
  std::string into;
};

// The operator hands the affine on to what it reads, after the edits.
struct Pass {
  torch::jit::Value* to;
  algebra::Affine affine;
  std::vector<Edit> edits;
  std::vector<int64_t> order = {};  // that of permute, where the output is a permuted view
};

// The operator can't: why, the node that stands in the way, and what a user should know about it.
struct Decline {
  Reason reason;
  const torch::jit::Node* node;
  std::string detail;
};

using Answer = std::variant<Absorb, Pass, Decline>;

struct Rule {
  std::string_view family;                  // the stem of the rule's file
  std::vector<std::string_view> operators;  // "aten::conv2d": every overload of it
  Answer (*backward)(const Site& site);
};

// All rules, one a family of operators.
const std::vector<Rule>& rule_table();

// The rule that speaks for `node`, null where there is none.
const Rule* rule_for(const torch::jit::Node* node);

}  // namespace bnfold
