// Lists that grow between concatenations, as DenseNet and VoVNet write them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// Where a list is only appended to, read at constant places and concatenated, gives each concatenation a list of what is in it then:
//
//   before   l = [a]; u = cat(l); l.append(b); w = l[-1]; v = cat(l)          after   u = cat([a]); w = b; v = cat([a, b])
void spell_out_growing_lists(torch::jit::Graph& graph);

}  // namespace bnfold
