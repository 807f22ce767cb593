// What a rule is: the answer of one family of operators to an affine that wants to move through them.
//
// An affine at a value v, with v = scale * u + shift, moves in one of two ways:
//   backward   the affine is wanted behind the node: its output is to become affine(output);
//   forward    the affine is missing before the node: its input u stands where affine(u) is meant.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "algebra/affine.h"
#include "bnfold/report.h"
#include "extents.h"
#include "parameter_store.h"
#include "ranks.h"

namespace bnfold {

// Input `input` of `node` becomes a static tensor, beside the static value `beside` under `name`, read through copies of `views`.
struct SetInput {
  torch::jit::Node* node;
  size_t input;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
  std::vector<torch::jit::Node*> views = {};
};

// Input `input` of `node` becomes this number.
struct SetNumber {
  torch::jit::Node* node;
  size_t input;
  double number;
};

// The first output of `node` gets a static tensor added, beside the static value `beside` under `name`.
struct AddToOutput {
  torch::jit::Node* node;
  at::Tensor tensor;
  torch::jit::Value* beside;
  std::string name;
};

// `node` becomes min(max(its input, lower), upper), the bounds beside the norm; an undefined bound is left out.
struct Bound {
  torch::jit::Node* node;
  at::Tensor lower;
  at::Tensor upper;
};

// `node` goes, and `value` takes the place of its first output.
struct Replace {
  torch::jit::Node* node;
  torch::jit::Value* value;
};

// `node`, which works in place, becomes the operator that doesn't.
struct Detach {
  torch::jit::Node* node;
};

using Edit = std::variant<SetInput, SetNumber, AddToOutput, Bound, Replace, Detach>;

// What is known of the values of a graph without running it.
struct Knowledge {
  const ParameterStore& store;
  const Ranks& ranks;
  const Extents& extents;
};

// What a rule sees; it reads and changes nothing.
struct Site {
  torch::jit::Node* node;
  size_t place;                   // which output has the affine behind it, or which input lacks it
  const algebra::Affine& affine;  // has the rank of that output or input
  at::ScalarType norm_dtype;      // of the norm's parameters
  bool from_batch_norm;  // one scale a channel, and the dtype of its input, as batch_norm has; no constant that broadcasts
  const Knowledge& known;
  const std::vector<Edit>& planned;  // the edits of the plan so far
};

enum class Way { backward, forward };

// An affine wanted behind `value`, or missing in it.
struct Move {
  torch::jit::Value* value;
  algebra::Affine affine;
  Way way;
};

// The operator takes the affine in: the edits that do so, and the dotted path of the layer.
struct Absorb {
  std::vector<Edit> edits;
  std::string into;
};

// The operator hands the affine on, after the edits: to the moves, none of which is left where every part of it is a no-op.
struct Pass {
  std::vector<Move> moves;
  std::vector<Edit> edits = {};
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
  Answer (*backward)(const Site& site);     // null where no affine passes that way
  Answer (*forward)(const Site& site);
};

// All rules, one a family of operators.
const std::vector<Rule>& rule_table();

// The rule that speaks for `node`, null where there is none.
const Rule* rule_for(const torch::jit::Node* node);

// The answers that pass an affine from the output to input 0, and from the input that lacks it to the first output.
Pass to_input(const Site& site, const algebra::Affine& affine);
Pass to_output(const Site& site, const algebra::Affine& affine);

}  // namespace bnfold
