#include "rules/identity_kernel.h"

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether the middle tap of a convolution reads the pixel that it writes.
bool is_centred(const jit::Node* conv, const at::Tensor& weight) {
  const auto geometry = conv_geometry(conv, weight);
  if (!geometry) return false;
  for (size_t i = 0; i < geometry->stride.size(); ++i) {
    const int64_t size = weight.size(static_cast<int64_t>(i) + 2);
    if (geometry->stride[i] != 1 || size % 2 == 0) return false;
    if (geometry->padding[i] != geometry->dilation[i] * (size / 2)) return false;
  }
  return true;
}

}  // namespace

bool is_sum(const jit::Node* node) {
  return is_one_of(node, {"add", "sub"}) && weight_in_sum(node, 1).value_or(0) != 0;
}

std::vector<Addend> addends_of(jit::Value* value, double weight) {
  std::vector<Addend> addends;
  std::vector<Addend> pending = {{value, weight}};
  while (!pending.empty()) {
    const Addend addend = pending.back();
    pending.pop_back();
    const jit::Node* node = addend.value->node();
    if (!only_reader(addend.value)) continue;
    if (!is_sum(node)) {
      addends.push_back(addend);
      continue;
    }
    for (const size_t place : {size_t{0}, size_t{1}}) {
      pending.push_back({const_cast<jit::Node*>(node)->input(place), addend.weight * *weight_in_sum(node, place)});
    }
  }
  return addends;
}

Answer absorb_identity(const Site& site) {
  const auto groups = constant_int(site.node->namedInput("groups"));
  if (!groups) return Decline{Reason::operand_not_constant, site.node, "groups is computed while the module runs"};
  const KernelInputs inputs{argument_index(site.node, "weight"), argument_index(site.node, "bias"),
                            algebra::KernelLayout::output_first, *groups};
  const auto read = read_layer(site, inputs);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Layer& layer = std::get<Layer>(read);
  const algebra::Kernel& kernel = layer.kernel;
  const int64_t channels = site.affine.size_along(1);
  if (kernel.weight.dim() != site.affine.rank() || !is_centred(site.node, kernel.weight) ||
      kernel.output_channels() != channels || kernel.input_channels() != channels || !site.affine.varies_only_along(1)) {
    return Decline{Reason::channels_differ, site.node, "the convolution beside the norm does not keep the size of its input"};
  }
  return write_layer(site, inputs, layer,
                     algebra::with_identity(kernel, site.affine.scale.flatten(), site.affine.shift.flatten()));
}

}  // namespace bnfold
