// In which order a value that is a permuted view has the dimensions of what it views.
#pragma once

#include <cstdint>
#include <vector>

namespace bnfold {

// Dimension i of the view is dimension order[i] of the value; empty where the value is no permuted view.
using DimensionOrder = std::vector<int64_t>;

// The order of a view that is permuted by `inner` first and by `outer` then.
DimensionOrder composed(const DimensionOrder& inner, DimensionOrder outer);

// batch_norm gives its output the memory format that its input suggests: channels_last for a contiguous [N, H, W, C] that was
// permuted to [N, C, H, W], contiguous for every other order.
bool batch_norm_would_reorder(const DimensionOrder& order);

}  // namespace bnfold
