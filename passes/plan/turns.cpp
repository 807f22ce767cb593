#include "plan/turns.h"

namespace bnfold {

std::optional<Turns> next(Turns turns) {
  while (!turns.empty() && turns.back().taken + 1 == turns.back().ways) turns.pop_back();
  if (turns.empty()) return std::nullopt;
  ++turns.back().taken;
  return turns;
}

}  // namespace bnfold
