// Lists that grow between concatenations, as DenseNet and VoVNet write them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// What adds several items to a list at once, of a list that is made for that alone, adds one after another:
//
//   before   l += [a, b]; l.extend([c])          after   l.append(a); l.append(b); l.append(c)
void append_one_by_one(torch::jit::Graph& graph);

// Where a list is only appended to, read at constant places and concatenated, gives each concatenation a list of what is in it then:
//
//   before   l = [a]; u = cat(l); l.append(b); w = l[-1]; v = cat(l)          after   u = cat([a]); w = b; v = cat([a, b])
void spell_out_growing_lists(torch::jit::Graph& graph);

}  // namespace bnfold
