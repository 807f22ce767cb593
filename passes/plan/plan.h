// Decides how a norm can be folded. Planning changes nothing.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "knowledge/find_norms.h"
#include "plan/checks.h"
#include "plan/layout.h"
#include "plan/targets.h"
#include "rules/rule.h"

namespace bnfold {

// All that is needed to take one norm out of its graph.
struct Plan {
  std::vector<Edit> edits;
  Direction direction;
  std::vector<std::string> into;  // dotted paths
  std::vector<RankCheck> checks;  // of the ranks that the fold rests on and nothing proves
  Layout layout = Layout::same;   // that is given to what takes the norm's place

  // What the edits cost, the norm not counted: negative where they take more away than they add.
  double cost(const Costs& costs) const;
};

// One way that was tried: the operators that the affine passed, and what stopped it.
struct Attempt {
  std::string way;  // "backward", "forward", "shift backward, scale forward", ..., "forward, other readers rescaled"
  std::vector<const torch::jit::Node*> passed;
  Decline decline;
};

// What was tried and where it ended.
struct Refusal {
  std::vector<Attempt> attempts;

  // The first obstacle on the way back, which is the one to name where only one can be named.
  const Decline& main() const { return attempts.front().decline; }

  // Whether an attempt ended at this obstacle.
  bool names(const Decline& decline) const;
};

// The plan for `norm` that costs least where `target` runs it, or what stood in every way. Values that others read too are rescaled, and so what
// the others make of them, only where nothing else helps.
std::variant<Plan, Refusal> plan(const Norm& norm, const ParameterStore& store, const Ranks& ranks, Target target);

}  // namespace bnfold
