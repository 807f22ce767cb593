// Which of the ways that operators offer an attempt takes.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace bnfold {

// Where an operator offered several ways: which one is taken, of how many; in the order in which they are met.
struct Turn {
  size_t taken;
  size_t ways;
};
using Turns = std::vector<Turn>;

// The turns of the next attempt after one with `turns`; nothing where all were tried.
std::optional<Turns> next(Turns turns);

}  // namespace bnfold
