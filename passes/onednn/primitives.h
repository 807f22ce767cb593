// Descriptions of primitives, which oneDNN 2 and oneDNN 3 take in different forms.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include <vector>

#include "onednn/description.h"
#include "onednn/orders.h"

namespace bnfold::onednn {

struct EltwiseStep {
  dnnl::algorithm algorithm;
  float alpha;
  float beta;
};

// x * min(max(x / 6 + 1/2, 0), 1)
EltwiseStep hardswish();

void append(dnnl::post_ops& ops, const EltwiseStep& step);

// Each throws dnnl::error where there is no kernel.
dnnl::convolution_forward::primitive_desc convolution_desc(const Desc& source, const Desc& weight, const Desc& bias,
                                                           const Desc& result, const Window& window,
                                                           const dnnl::primitive_attr& attributes);
dnnl::eltwise_forward::primitive_desc eltwise_desc(const EltwiseStep& step, const Desc& desc,
                                                   const dnnl::primitive_attr& attributes);
dnnl::binary::primitive_desc binary_desc(dnnl::algorithm algorithm, const Desc& one, const Desc& other,
                                         const dnnl::primitive_attr& attributes);
dnnl::pooling_forward::primitive_desc pooling_desc(dnnl::algorithm algorithm, const Desc& source, const Desc& result,
                                                   const Window& window, const dnnl::primitive_attr& attributes);
dnnl::concat::primitive_desc concat_desc(const Desc& result, int dimension, const std::vector<Desc>& parts,
                                         const dnnl::primitive_attr& attributes);

}  // namespace bnfold::onednn
