// Weights in float, in the order that oneDNN's kernels read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace bnfold::onednn {

using Sizes = std::vector<int64_t>;

// Keeps its numbers once, in the order that a network asked for last.
class Weight;
using WeightPtr = std::shared_ptr<Weight>;

// Of contiguous numbers, which are copied.
WeightPtr make_weight(const Sizes& sizes, const float* numbers);

const Sizes& sizes_of(const Weight& weight);

// Writes the numbers in their ordinary order into `numbers`.
void read_weight(const Weight& weight, float* numbers);

}  // namespace bnfold::onednn
