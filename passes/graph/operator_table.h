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
  interpolated,         // likewise, with a batch
  convolution,          // batch of the input, if any, and channels of the weight
  batched_convolution,  // likewise, with a batch
  product,              // of the input, with the rows of the weight at the end: linear, matmul with a matrix
  matrix,               // two dimensions: mm, addmm
  broadcast,            // of all tensors, broadcast
  concatenation,        // of a list of tensors, joined along a dimension
  pieces,               // of a tensor that is cut into a list
  listed,               // as the second input says: view, reshape
  like,                 // of the second input: view_as
  flattened,
  permuted,
  transposed,
  unsqueezed,
  squeezed,
  selected,  // one dimension fewer
  embedded,  // of the second input, and one more dimension
  padded,    // the last dimensions grow
  cut,       // one dimension shrinks: slice, narrow
  reduced,   // over dimensions: mean, sum
  shuffled,  // the rank stays: pixel_shuffle
};

enum class Dtype {
  unknown,
  same,      // of the first input
  floating,  // of the first input where that is a floating one
  promoted,  // what all tensors and numbers among the inputs promote to
  quotient,  // likewise, where that is a floating one
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
  followed,    // one of those that the input suggests
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

// The same of the operator that makes new memory where `node` works in place: of relu for relu_.
const Operator& functional_operator_of(const torch::jit::Node* node);

}  // namespace bnfold
