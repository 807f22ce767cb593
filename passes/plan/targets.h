// What the edits of a fold cost where the module runs.
#pragma once

#include "bnfold/target.h"

namespace bnfold {

// Times for each element of a value, relative to that of a norm. What becomes a bound is an activation no more, so a bound costs what it takes
// more than an activation.
struct Costs {
  double step;                    // a static addend, a sum, a copy
  double bound;                   // a bound on one side for each channel
  double both_bounds;             // bounds on both sides
  double norm;                    // a norm that is kept
  double norm_before_activation;  // one that is computed together with the activation behind it
};

struct TargetTraits {
  Costs costs;
  bool runs_checks;    // what the folded module asks as it runs is asked there too
  bool only_backward;  // a fold into other layers than those that make the value spreads their channels wider
};

const TargetTraits& traits_of(Target target);

}  // namespace bnfold
