// Lists that grow between concatenations, as DenseNet writes them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Where a list is only appended to and concatenated, gives each concatenation a list of what is in it then:
//
//   before   l = [a]; u = cat(l); l.append(b); v = cat(l)          after   u = cat([a]); v = cat([a, b])
void spell_out_growing_lists(torch::jit::Graph& graph);

}  // namespace bnfold
