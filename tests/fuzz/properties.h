// What must hold of every graph that is folded, whatever it computes.
#pragma once

#include <string>

#include "bnfold/report.h"
#include "ir_program.h"

namespace bnfold::fuzz {

struct Outcome {
  std::string broken;  // the property that does not hold, empty where all do
  std::string detail;

  bool runs = false;          // torch can run the graph on its inputs
  std::string refusal;        // what fold said where it threw Error
  bool rank_checked = false;  // the folded module refused the rank that it was not told
  Report report;              // of the module
};

// Folds the program as a module and as a graph of constants, and compares both with what they were.
Outcome check(const IrProgram& program);

}  // namespace bnfold::fuzz
