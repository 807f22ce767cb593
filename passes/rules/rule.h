// What a rule is: the answer of one family of operators to an affine that wants to move through them.
//
// An affine at a value v, with v = scale * u + shift, moves in one of two ways:
//   backward   the affine is wanted behind the node: its output is to become affine(output);
//   forward    the affine is missing before the node: its input u stands where affine(u) is meant.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "algebra/affine.h"
#include "knowledge/decline.h"
#include "knowledge/knowledge.h"
#include "rules/edit.h"

namespace bnfold {

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
  bool cuts = false;  // whether the output is a part of the input's memory, which is not dense
};

// The operator can hand the affine on in several ways, the one to try first in front. The planner takes the first that leads to a fold.
struct Choice {
  std::vector<Pass> ways;            // one at least
  std::optional<Decline> otherwise;  // why there is no other one, to tell where these lead to no fold
};

using Answer = std::variant<Absorb, Pass, Choice, Decline>;

struct Rule {
  std::string_view family;                  // the stem of the rule's file
  std::vector<std::string_view> operators;  // overloads, as "aten::add.Tensor"
  Answer (*backward)(const Site& site);     // null where no affine passes that way
  Answer (*forward)(const Site& site);
};

// All rules, one or several a family of operators.
const std::vector<Rule>& rule_table();

// The rule that speaks for `node`, null where there is none.
const Rule* rule_for(const torch::jit::Node* node);

// The answers that pass an affine from the output to input 0, and from the input that lacks it to the first output.
Pass to_input(const Site& site, const algebra::Affine& affine);
Pass to_output(const Site& site, const algebra::Affine& affine);

}  // namespace bnfold
