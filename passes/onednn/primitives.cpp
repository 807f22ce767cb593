#include "onednn/primitives.h"

namespace bnfold::onednn {

namespace {

using dnnl::algorithm;
constexpr auto kInference = dnnl::prop_kind::forward_inference;

// oneDNN counts what lies between.
Sizes gaps(const Window& window) {
  Sizes dilation = window.dilation;
  for (int64_t& one : dilation) --one;
  return dilation;
}

}  // namespace

#if DNNL_VERSION_MAJOR == 2

EltwiseStep hardswish() {
  return {algorithm::eltwise_hardswish, 0, 0};
}

void append(dnnl::post_ops& ops, const EltwiseStep& step) {
  ops.append_eltwise(1.F, step.algorithm, step.alpha, step.beta);
}

dnnl::convolution_forward::primitive_desc convolution_desc(const Desc& source, const Desc& weight, const Desc& bias,
                                                           const Desc& result, const Window& window,
                                                           const dnnl::primitive_attr& attributes) {
  const dnnl::convolution_forward::desc desc(kInference, algorithm::convolution_direct, source, weight, bias, result,
                                             window.stride, gaps(window), window.padding, window.padding);
  return {desc, attributes, cpu()};
}

dnnl::eltwise_forward::primitive_desc eltwise_desc(const EltwiseStep& step, const Desc& desc,
                                                   const dnnl::primitive_attr& attributes) {
  return {{kInference, step.algorithm, desc, step.alpha, step.beta}, attributes, cpu()};
}

dnnl::binary::primitive_desc binary_desc(dnnl::algorithm algorithm, const Desc& one, const Desc& other,
                                         const dnnl::primitive_attr& attributes) {
  return {{algorithm, one, other, one}, attributes, cpu()};
}

dnnl::pooling_forward::primitive_desc pooling_desc(dnnl::algorithm algorithm, const Desc& source, const Desc& result,
                                                   const Window& window, const dnnl::primitive_attr& attributes) {
  const dnnl::pooling_forward::desc desc(kInference, algorithm, source, result, window.stride, window.kernel, window.padding,
                                         window.padding);
  return {desc, attributes, cpu()};
}

dnnl::concat::primitive_desc concat_desc(const Desc& result, int dimension, const std::vector<Desc>& parts,
                                         const dnnl::primitive_attr& attributes) {
  return {result, dimension, parts, cpu(), attributes};
}

#else

EltwiseStep hardswish() {
  return {algorithm::eltwise_hardswish, 1.F / 6, 0.5F};
}

void append(dnnl::post_ops& ops, const EltwiseStep& step) {
  ops.append_eltwise(step.algorithm, step.alpha, step.beta);
}

dnnl::convolution_forward::primitive_desc convolution_desc(const Desc& source, const Desc& weight, const Desc& bias,
                                                           const Desc& result, const Window& window,
                                                           const dnnl::primitive_attr& attributes) {
  return dnnl::convolution_forward::primitive_desc(cpu(), kInference, algorithm::convolution_direct, source, weight, bias, result,
                                                   window.stride, gaps(window), window.padding, window.padding, attributes);
}

dnnl::eltwise_forward::primitive_desc eltwise_desc(const EltwiseStep& step, const Desc& desc,
                                                   const dnnl::primitive_attr& attributes) {
  return {cpu(), kInference, step.algorithm, desc, desc, step.alpha, step.beta, attributes};
}

dnnl::binary::primitive_desc binary_desc(dnnl::algorithm algorithm, const Desc& one, const Desc& other,
                                         const dnnl::primitive_attr& attributes) {
  return {cpu(), algorithm, one, other, one, attributes};
}

dnnl::pooling_forward::primitive_desc pooling_desc(dnnl::algorithm algorithm, const Desc& source, const Desc& result,
                                                   const Window& window, const dnnl::primitive_attr& attributes) {
  return dnnl::pooling_forward::primitive_desc(cpu(), kInference, algorithm, source, result, window.stride, window.kernel,
                                               gaps(window), window.padding, window.padding, attributes);
}

dnnl::concat::primitive_desc concat_desc(const Desc& result, int dimension, const std::vector<Desc>& parts,
                                         const dnnl::primitive_attr& attributes) {
  return {cpu(), result, dimension, parts, attributes};
}

#endif

}  // namespace bnfold::onednn
