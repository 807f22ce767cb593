// How many elements a value has along a dimension, as far as it can be known without running the graph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "algebra/affine.h"
#include "graph/parameter_store.h"
#include "knowledge/asked_ranks.h"

namespace bnfold {

// Valid as long as the graph does not change, and for one attempt: what a size rests on is noted when it is asked for first.
class Extents {
 public:
  Extents(const ParameterStore& store, const AskedRanks& ranks) : store_(store), ranks_(ranks) {}

  // The size of `value` along `dimension`, which counts from the front; nothing where it is not known, or behind too many sums.
  std::optional<int64_t> of(const torch::jit::Value* value, int64_t dimension) const;

  // The size of what a linear layer makes along the last dimension, whatever its rank.
  std::optional<int64_t> last_of_linear(const torch::jit::Node* linear) const;

  // Whether `value` is known to have the rank of the affine, and its size along every dimension along which the affine varies. What has
  // not may be broadcast to them.
  bool fit(const torch::jit::Value* value, const algebra::Affine& affine) const;

 private:
  std::optional<std::vector<int64_t>> shape_of_static(const torch::jit::Node* node, size_t input) const;
  std::optional<int64_t> told_by_readers(const torch::jit::Value* value, int64_t dimension) const;
  std::optional<int64_t> taken_by(const torch::jit::Node* layer, int64_t dimension) const;
  std::optional<int64_t> computed(const torch::jit::Value* value, int64_t dimension) const;
  bool stays(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<bool> is_reduced(const torch::jit::Node* node, int64_t dimension) const;
  bool is_spatial(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_adaptive_pooling(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_weight(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_concatenation(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_stack(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> dimension_before_squeeze(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_broadcast(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_padded(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_listed(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_part(const torch::jit::Node* node, int64_t dimension) const;
  std::optional<int64_t> of_piece(const torch::jit::Value* pieces, std::optional<int64_t> place, int64_t dimension) const;

  const ParameterStore& store_;
  const AskedRanks& ranks_;
  mutable std::map<std::pair<const torch::jit::Value*, int64_t>, std::optional<int64_t>> known_;
  mutable int depth_ = 0;  // of the calls of `of` in one another
};

// The end of a slice that is given none.
constexpr int64_t kSliceEnd = std::numeric_limits<int64_t>::max();

// The start and the end that a slice of a tensor or list is given; nothing where one is computed.
std::optional<std::pair<int64_t, int64_t>> slice_bounds(const torch::jit::Node* slice);

// Where a slice with these bounds begins and ends, of `length` elements.
std::pair<int64_t, int64_t> sliced_places(int64_t start, int64_t end, int64_t length);

// The elements from `start` on, along a dimension.
struct CutRange {
  int64_t start;
  int64_t length;
};

// What slice, narrow and select take of `size` elements; nothing where the bounds are computed, or leave some out between them.
std::optional<CutRange> range_of_cut(const torch::jit::Node* cut, int64_t size);

// Whether the operator cuts a tensor into a list: chunk, split, unbind.
bool makes_pieces(const torch::jit::Node* node);

// The sizes along the cut of what such an operator makes of `whole` elements; nothing where they are computed, or made of a size that is not
// known.
std::optional<std::vector<int64_t>> lengths_of_pieces(const torch::jit::Node* cut, std::optional<int64_t> whole);

// Which dimension of its input becomes `dimension` of the output of permute, transpose or t, for a value of rank `rank`.
std::optional<int64_t> dimension_before(const torch::jit::Node* node, int64_t dimension, std::optional<int64_t> rank);

// That of one of them, counted from the end where `piece` is negative.
std::optional<int64_t> size_of_piece(const torch::jit::Node* cut, int64_t piece, std::optional<int64_t> whole);

}  // namespace bnfold
