// One attempt to fold a norm: moves affines from node to node until every one is absorbed.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "knowledge/find_norms.h"
#include "plan/plan.h"
#include "plan/turns.h"

namespace bnfold {

struct Attempted {
  std::variant<Plan, Decline> outcome;          // the plan has no direction yet
  std::vector<const torch::jit::Node*> passed;  // the operators that the affines passed
  Turns turns;                                  // that were taken
};

// Whether `backward`, wanted behind the norm's input, and `forward`, missing in its output, can all be absorbed. With `rescales`, others that
// read a value may be given its scale back. `turns` are
// those to take; where more are offered, the first way is taken.
Attempted search(const Norm& norm, const Knowledge& known, bool rescales, const std::optional<algebra::Affine>& backward,
                 const std::optional<algebra::Affine>& forward, const Turns& turns);

}  // namespace bnfold
