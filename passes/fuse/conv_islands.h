// Convolutions that are slower as steps.
//
// Steps hand on channels_last memory to each other, at no cost, through whatever passes it on; where they begin and end it is made and unmade. So those
// that do are an island, which is kept as a whole: one convolution in its middle that stays would cost two copies.
//
// A convolution gains as a step where one of these holds
//             LibTorch computes it by oneDNN anyhow, with as much around the kernel: it has groups, several images, a large kernel or a large image
//             the product is so large that oneDNN's kernel makes up for what is around it, 20 to 40 us: measured, the two took the same time between 0.6
//             and 2.4 million products
//             nothing tells its size, or it is no float convolution of images, for which LibTorch has slow kernels alone
#pragma once

#include <vector>

#include "fuse/conv.h"

namespace bnfold {

// Takes out of `fusions` the islands in which no convolution gains, and returns them.
std::vector<ConvFusion> take_slower_islands(std::vector<ConvFusion>& fusions, const Facts& facts);

}  // namespace bnfold
