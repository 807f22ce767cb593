// Draws a graph: layers, norms and what may stand between them, as scripting, tracing, freezing and no compiler at all would write them.
#pragma once

#include "choices.h"
#include "ir_program.h"

namespace bnfold::fuzz {

// A program whose graph runs in most cases: its shapes are tracked. Equal choices give equal programs.
IrProgram generate_graph(Choices& choices);

}  // namespace bnfold::fuzz
