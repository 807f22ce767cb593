// A convolution takes in what is added to its result and is an affine of its own input: x itself, or a norm of x.
//
//   before   x --> conv(W, b) --> (+) --> y          after   x --> conv(W', b') --> y
//            x -- scale * x + shift --> (+)
//
// Formula     W'[o, i, k] = W[o, i, k] + scale[o] where k is the middle tap and i the input that belongs to o; b'[o] = b[o] + shift[o]
// Conditions  groups is a constant                                         operand_not_constant
//             those of read_layer and write_layer
//             stride 1, an odd kernel, and zeros around the input that keep
//             its size; as many outputs as inputs and channels             channels_differ
// Shapes      W [O, I/groups, ...], b [O]; x and y [N, O, ...].
#pragma once

#include <vector>

#include "rules/rule.h"

namespace bnfold {

// Whether the node is a sum or difference of tensors or numbers, each a constant number of times.
bool is_sum(const torch::jit::Node* node);

// An addend of a sum, and how often it counts.
struct Addend {
  torch::jit::Value* value;
  double weight;
};

// All addends below `value`, which counts `weight` times, through sums that nobody else reads.
std::vector<Addend> addends_of(torch::jit::Value* value, double weight);

// The site's node, a convolution, takes in that the affine of its input is added to its output.
Answer absorb_identity(const Site& site);

}  // namespace bnfold
