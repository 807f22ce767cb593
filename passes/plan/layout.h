// How what takes a norm's place lies in memory, beside what the norm made there.
//
//   permute, conv                    a view, in its own order         batch_norm      the order that its input suggests, dense
//   x[:, :, :-2]                     a part of larger memory          batch_norm      dense
//   any order                        that order                       instance_norm   contiguous
//   a part of larger memory          that part                        sums, products  dense, in its order
//
// A fold takes the norm away, so where its reader may see a difference the plan says what has to be made anew.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "knowledge/find_norms.h"

namespace bnfold {

// What is made of the value that takes the norm's place; a later one does what those before it do.
enum class Layout {
  same,        // nothing, it lies as the norm's output did
  dense,       // a copy without gaps, in the order that it has
  contiguous,  // contiguous memory
};

// Where the norm's input, of `rank` dimensions, is permuted: what is written out keeps the order, and batch_norm gives its output the memory format that its
// input suggests, channels_last for a contiguous [N, H, W, C] that was permuted to [N, C, H, W], contiguous for every other order. Declines where the input
// may be either.
std::variant<Layout, Decline> layout_of_input(const Norm& norm, std::optional<int64_t> rank);

// Of a part of the memory: a dense tensor is made of it, by batch_norm in the order that it has where that has four or five dimensions.
Layout layout_behind_cut(const Norm& norm, int64_t rank);

// instance_norm makes contiguous memory of every order, and a norm that branches over it.
Layout layout_made_by(const Norm& norm);

}  // namespace bnfold
