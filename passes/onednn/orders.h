// Orders in memory, as oneDNN describes them. This header knows oneDNN, and what includes it can't include LibTorch's, which bring another one.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include "onednn/weight.h"

namespace bnfold::onednn {

using Desc = dnnl::memory::desc;

const dnnl::engine& cpu();

Desc row_major(const Sizes& sizes);
Desc channels_last(const Sizes& sizes);  // of 4 or 5 dimensions

// The one that a kernel chooses.
Desc any_order(const Sizes& sizes);

Sizes dims_of(const Desc& desc);

// The order of `desc`, blocks of channels or channels last, for other sizes; row-major where it is neither.
Desc like(const Desc& desc, const Sizes& sizes);

// Whether the last block has room for channels that there are not.
bool is_padded(const Desc& desc);

// How many channels lie together in blocks, each of which is a piece of memory of its own; 0 for another order.
int64_t channels_of_block(const Desc& desc);

void reorder_now(dnnl::memory from, dnnl::memory to);

// The weight in this order, whose sizes may have the groups or some 1 before the others. It stays where it is while somebody has it.
dnnl::memory in_order(Weight& weight, const Desc& desc);

}  // namespace bnfold::onednn
