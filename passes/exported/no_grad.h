// Regions of torch.no_grad() and its like, which hide what is in them.
//
//   before   y = wrap_with_set_grad_enabled(False, {z = conv(x, w)}, x, w)          after   z = conv(x, w)
#pragma once

#include "exported/json.h"

namespace bnfold::exported {

// Puts the nodes of such regions into the graph of `program`, in the place of the region, those of regions in regions too. Nobody
// differentiates what is folded, so they mean nothing.
void inline_grad_regions(Json& program);

}  // namespace bnfold::exported
