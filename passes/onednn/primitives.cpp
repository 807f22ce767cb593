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

// oneDNN 2 describes an operation first, and asks for a kernel then.
template <typename Operation, typename... Arguments>
typename Operation::primitive_desc described(const dnnl::primitive_attr& attributes, const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR == 2
  return {typename Operation::desc(arguments...), attributes, cpu()};
#else
  return {cpu(), arguments..., attributes};
#endif
}

}  // namespace

EltwiseStep hardswish() {
#if DNNL_VERSION_MAJOR == 2
  return {algorithm::eltwise_hardswish, 0, 0};
#else
  return {algorithm::eltwise_hardswish, 1.F / 6, 0.5F};
#endif
}

void append(dnnl::post_ops& ops, const EltwiseStep& step) {
#if DNNL_VERSION_MAJOR == 2
  ops.append_eltwise(1.F, step.algorithm, step.alpha, step.beta);
#else
  ops.append_eltwise(step.algorithm, step.alpha, step.beta);
#endif
}

dnnl::convolution_forward::primitive_desc convolution_desc(const Desc& source, const Desc& weight, const Desc& bias,
                                                           const Desc& result, const Window& window,
                                                           const dnnl::primitive_attr& attributes) {
  return described<dnnl::convolution_forward>(attributes, kInference, algorithm::convolution_direct, source, weight, bias, result,
                                              window.stride, gaps(window), window.padding, window.padding);
}

dnnl::eltwise_forward::primitive_desc eltwise_desc(const EltwiseStep& step, const Desc& desc,
                                                   const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR == 2
  return described<dnnl::eltwise_forward>(attributes, kInference, step.algorithm, desc, step.alpha, step.beta);
#else
  return described<dnnl::eltwise_forward>(attributes, kInference, step.algorithm, desc, desc, step.alpha, step.beta);
#endif
}

dnnl::binary::primitive_desc binary_desc(dnnl::algorithm algorithm, const Desc& one, const Desc& other,
                                         const dnnl::primitive_attr& attributes) {
  return described<dnnl::binary>(attributes, algorithm, one, other, one);
}

dnnl::pooling_forward::primitive_desc pooling_desc(dnnl::algorithm algorithm, const Desc& source, const Desc& result,
                                                   const Window& window, const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR == 2
  return described<dnnl::pooling_forward>(attributes, kInference, algorithm, source, result, window.stride, window.kernel,
                                          window.padding, window.padding);
#else
  return described<dnnl::pooling_forward>(attributes, kInference, algorithm, source, result, window.stride, window.kernel,
                                          gaps(window), window.padding, window.padding);
#endif
}

dnnl::concat::primitive_desc concat_desc(const Desc& result, int dimension, const std::vector<Desc>& parts,
                                         const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR == 2
  return {result, dimension, parts, cpu(), attributes};
#else
  return {cpu(), result, dimension, parts, attributes};
#endif
}

}  // namespace bnfold::onednn
