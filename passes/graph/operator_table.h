// What operators do to sizes, dtype and memory: one table, keyed by overload, for all that asks.
//
// What is not listed is unknown in every respect: its result may have any size and be the memory of any of its inputs. An overload that
// works in place, relu_, is known where the one that does not, relu, is listed: it writes into its first input and returns it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <vector>

namespace bnfold {

// What the sizes of the first output are made of; those of all outputs of `pieces`.
enum class Shape {
  unknown,
  same,                 // of the first input
  normalized,           // of the first input, which has channels
  channels,             // those of the first input but for the last dimensions, with or without a batch: pooling
  adapted,              // likewise, where the last dimensions are the second input: adaptive pooling
  bordered,             // likewise, where they grow by the second input
  interpolated,         // of the first input but for the last dimensions, with a batch
  convolution,          // batch of the input, if any, and channels of the weight
  batched_convolution,  // likewise, with a batch
  linear,               // of the input, with the rows of the weight at the end
  product,              // rows of one and columns of the other tensor, the dimensions in front of them broadcast: matmul
  matrix,               // likewise, of two dimensions: mm, addmm
  matrices,             // likewise, of three dimensions: bmm
  attention,            // of the first input, with the last dimension of the third
  broadcast,            // of all tensors, broadcast
  concatenation,        // of a list of tensors, joined along a dimension
  stacked,              // likewise, along a new one
  pieces,               // of a tensor that is cut into a list
  unbound,              // likewise, into pieces of one dimension fewer
  given,                // as the first input, a list of numbers, says: zeros
  listed,               // as the second input says: view, reshape
  expanded,             // likewise, where -1 leaves a dimension
  repeated,             // so often as the second input says
  like,                 // of the second input: view_as
  gathered,             // of the third input
  sequences,            // of the first input, which has three dimensions
  flattened,
  permuted,
  transposed,
  unsqueezed,
  squeezed,
  selected,  // one dimension fewer
  embedded,  // of the second input, and one more dimension
  windowed,  // of the first input, and one more dimension: unfold, one_hot
  diagonal,  // two dimensions become one
  divided,   // one dimension becomes several: unflatten
  tiled,     // as repeated, where the first input may have more dimensions than numbers are given
  equation,  // as the first input, a string, says: einsum
  padded,    // the last dimensions grow
  cut,       // one dimension shrinks: slice, narrow
  reduced,   // over dimensions: mean, sum
  resized,   // as many dimensions as the first input has, of other sizes
  shuffled,  // channels become pixels
  unshuffled,
};

enum class Dtype {
  unknown,
  same,      // of the first input
  floating,  // of the first input where that is a floating one
  inexact,   // of the first input where that is a floating or complex one; one of those whatever it is
  like,      // of the second input
  stated,    // of the argument dtype; where there is none, of the first input
  summed,    // likewise, where that is a floating or complex one
  averaged,  // likewise; the operator takes floating and complex ones alone
  promoted,  // what all tensors and numbers among the inputs promote to
  quotient,  // likewise, where that is a floating or complex one
  chosen,    // what the second and the third input promote to
  layer,     // of the weight, and of the input too
  parts,     // what the tensors of a list promote to
};

enum class Storage {
  unknown,  // may be that of any input
  fresh,    // new, and nobody else's
  view,     // may be that of the first input, or part of it
};

// The order in which the output lies in memory.
enum class Order {
  unknown,
  kept,        // that of the first input, where that is dense
  contiguous,  // whatever the input has
  stated,      // as the argument memory_format says
  followed,    // one of those that the input suggests, and dense
  derived,     // it depends on that of the input, which may have any
};

struct Operator {
  Shape shape = Shape::unknown;
  Dtype dtype = Dtype::unknown;
  Storage storage = Storage::unknown;
  Order order = Order::unknown;
  bool in_place = false;  // writes into the first input, and returns it
};

struct OperatorRow {
  Operator facts;
  std::vector<std::string> overloads;  // "add.Tensor" in the namespace aten, "mkldnn::..." in another one
};

const std::vector<OperatorRow>& operator_rows();

// What is known of `node`; all unknown where it is not listed.
const Operator& operator_of(const torch::jit::Node* node);

// The same of the operator that makes new memory where `node` works in place, in the order of what is overwritten: of relu for relu_.
const Operator& functional_operator_of(const torch::jit::Node* node);

}  // namespace bnfold
