// Two convolutions of the same value whose results are added become one, with the larger kernel: RepVGG, MobileOne, ACNet.
//
//   before   x --> conv(W, b) --> (+) --> y          after   x --> conv(W', b') --> y
//            x --> conv(V, c) --> (+)
//
// Formula     W'[o, i, tap] = W[o, i, tap] + alpha * V[o, i, tap], with V in the middle of W and zeros around it; b' = b + alpha * c.
//             Both have an output for each place of the kernel on the padded value. Where the places of both have one middle, V with zeros
//             around it reads what it read before, and zeros of the padding too.
// Conditions  neither result is read by anything but the sum
//             no dimension of V is larger than that of W; each is smaller by an even number, so that they have one middle
//             strides are equal, dilations too where both kernels have more than one tap
//             both make the same sizes of every input: 2 * padding - dilation * (size - 1) is the same
//             groups, dtype and device are the same, and nothing writes into x between the two
// The sum has the order in memory of its first addend, which a weight in channels_last decides: W' lies as the weight of that one does. Of volumes LibTorch's
// kernels choose it by size, and the first addend has to be the one with the larger kernel.
// Shapes      W and V [O, I/groups, ...], b and c [O].
#include "plan/parallel_convs.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "algebra/kernel.h"
#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

struct Conv {
  jit::Node* node;
  StaticOperand weight;
  StaticOperand bias;
  ConvGeometry geometry;

  algebra::Kernel kernel() const { return {weight.tensor, bias.tensor, algebra::KernelLayout::output_first, geometry.groups}; }
};

// The convolution that makes `value` for one reader alone; nothing where it is another operator, or computes its weights.
std::optional<Conv> conv_of(const jit::Value* value, const ParameterStore& store) {
  jit::Node* node = const_cast<jit::Value*>(value)->node();
  if (!is_forward_conv(node) || value->uses().size() != 1) return std::nullopt;
  const auto weight = static_operand(store, node->namedInput("weight"));
  const auto bias = static_operand(store, node->namedInput("bias"));
  if (!weight || !weight->tensor.defined() || !weight->views.empty() || !bias || !bias->views.empty()) return std::nullopt;
  if (!algebra::is_plain_floating(weight->tensor) || weight->tensor.dim() < 3) return std::nullopt;
  const auto geometry = conv_geometry(node, weight->tensor);
  if (!geometry) return std::nullopt;
  return Conv{node, *weight, *bias, *geometry};
}

// Along one spatial dimension: the taps of the small kernel are among those of the large one, and both make as many outputs.
bool fits_along(size_t dimension, const Conv& small, const Conv& large) {
  const auto number = static_cast<int64_t>(dimension);
  const int64_t taps = small.weight.tensor.size(number + 2);
  const int64_t large_taps = large.weight.tensor.size(number + 2);
  const ConvGeometry& a = small.geometry;
  const ConvGeometry& b = large.geometry;
  if (taps > large_taps || (large_taps - taps) % 2 != 0 || a.stride[dimension] != b.stride[dimension]) return false;
  if (taps > 1 && a.dilation[dimension] != b.dilation[dimension]) return false;
  return 2 * a.padding[dimension] - a.dilation[dimension] * (taps - 1) ==
         2 * b.padding[dimension] - b.dilation[dimension] * (large_taps - 1);
}

bool have_one_type(const at::Tensor& a, const at::Tensor& b) {
  return !a.defined() || !b.defined() || (a.scalar_type() == b.scalar_type() && a.device() == b.device());
}

bool fits_into(const Conv& small, const Conv& large) {
  const at::Tensor& a = small.weight.tensor;
  const at::Tensor& b = large.weight.tensor;
  const bool alike = have_one_type(a, b) && have_one_type(small.bias.tensor, a) && have_one_type(large.bias.tensor, b) &&
                     a.dim() == b.dim() && a.size(0) == b.size(0) &&
                     a.size(1) == b.size(1);  // so the groups of one input are equal too
  if (!alike) return false;
  for (size_t dimension = 0; dimension < small.geometry.stride.size(); ++dimension) {
    if (!fits_along(dimension, small, large)) return false;
  }
  return true;
}

struct Merge {
  jit::Node* sum;
  Conv large;
  Conv small;
  algebra::Kernel kernel;  // of both
};

// What a sum becomes, where both addends are such convolutions.
std::optional<Merge> plan_merge(jit::Node* sum, const ParameterStore& store) {
  const auto weight = weight_in_sum(sum, 1);
  auto first = conv_of(sum->input(0), store);
  auto second = first && weight ? conv_of(sum->input(1), store) : std::nullopt;
  if (!second || first->node->input(0) != second->node->input(0)) return std::nullopt;
  if (!store.memory().read_the_same(first->node->input(0), first->node, second->node)) return std::nullopt;
  for (const Conv* conv : {&*first, &*second}) {
    if (conv->node->owningBlock() != sum->owningBlock()) return std::nullopt;
  }
  const bool swapped = !fits_into(*second, *first);
  if (swapped && (!fits_into(*first, *second) || first->weight.tensor.dim() > 4)) return std::nullopt;
  const Conv& large = swapped ? *second : *first;
  const Conv& small = swapped ? *first : *second;
  auto kernel = algebra::sum_of_kernels(large.kernel(), swapped ? *weight : 1, small.kernel(), swapped ? 1 : *weight);
  if (!is_channels_last(first->node->input(0), store)) {
    kernel.weight = kernel.weight.contiguous(first->weight.tensor.suggest_memory_format());
  }
  if (algebra::left_range(large.weight.tensor, kernel.weight) ||
      (kernel.bias.defined() && algebra::left_range(large.bias.tensor, kernel.bias))) {
    return std::nullopt;
  }
  return Merge{sum, large, small, kernel};
}

void apply(const Merge& merge, ParameterStore& store) {
  jit::Node* node = merge.large.node;
  jit::Value* weight = merge.large.weight.leaf;
  const auto replace = [&](const char* argument, jit::Value* beside, const std::string& name, const at::Tensor& tensor) {
    node->replaceInput(argument_index(node, argument), store.add(beside, name, tensor));
  };
  const std::string name = attribute_name(store, weight);
  replace("weight", weight, name, merge.kernel.weight);
  if (merge.kernel.bias.defined()) {
    const bool had_bias = merge.large.bias.tensor.defined();
    jit::Value* bias = merge.large.bias.leaf;
    replace("bias", had_bias ? bias : weight, had_bias ? attribute_name(store, bias) : bias_name(name), merge.kernel.bias);
  }
  store.memory().adopt(node->output(), merge.sum->output());
  merge.sum->output()->replaceAllUsesWith(node->output());
  merge.sum->destroy();
  merge.small.node->destroy();
}

std::vector<jit::Node*> sums_of(const jit::Graph& graph) {
  std::vector<jit::Node*> sums;
  for_each_node(graph.block(), [&sums](jit::Node* node) {
    const bool sum = is_one_of(node, {"add", "sub"});
    if (sum && node->input(1)->type()->kind() == c10::TypeKind::TensorType) sums.push_back(node);
  });
  return sums;
}

}  // namespace

// In the order of the graph, so that a sum of three finds the first two merged.
bool merge_parallel_convs(jit::Graph& graph, ParameterStore& store, Report& report) {
  bool changed = false;
  for (jit::Node* sum : sums_of(graph)) {
    const auto merge = plan_merge(sum, store);
    if (!merge) continue;
    report.merged.push_back({store.layer(merge->small.weight.leaf), store.layer(merge->large.weight.leaf)});
    apply(*merge, store);
    changed = true;
  }
  return changed;
}

}  // namespace bnfold
