// Lists that change while a module runs, as those of skip connections and dense blocks.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

namespace bnfold {

// What adds several items to a list at once, of a list that is made for that alone, adds one after another:
//
//   before   l += [a, b]; l.extend([c])          after   l.append(a); l.append(b); l.append(c)
void append_one_by_one(torch::jit::Graph& graph);

// Where a list changes at constant places, gives who reads it what is in it then, up to where it is seen by something else: that gets a list
// with what is in it there. Returns whether there was one.
//
//   before   l = [a]; u = cat(l); l.append(b); w = l.pop(0); n = len(l); return l          after   u = cat([a]); w = a; n = 1; return [b]
bool spell_out_changed_lists(torch::jit::Graph& graph);

}  // namespace bnfold
