#include "plan/sideways.h"

#include <algorithm>

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/memory.h"
#include "graph/operators.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

bool is_sum(const jit::Node* node) {
  return is_one_of(node, {"add", "sub"}) && weight_in_sum(node, 1).value_or(0) != 0;
}

// An addend of the sum, and how often it counts.
struct Addend {
  jit::Value* value;
  double weight;
};

// All addends below `value`, through sums that nobody else reads.
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

// The sums of a value and numbers, and the first one of tensors behind them. What is left of that one takes its place, with the size, the
// dtype and the order in memory that the convolution among its addends has; a later sum could not tell them.
struct Sums {
  std::vector<jit::Node*> of_numbers;  // first the sums of the value and a number
  double number = 0;                   // these numbers together
  std::optional<Replace> removal;      // what takes the value out of the sum of tensors
  std::vector<Addend> beside;          // what is added to the value there; how often it counts for each time that the value does
};

Sums sums_above(jit::Value* value, const Memory& memory) {
  Sums sums;
  double weight = 1;
  for (auto reader = only_reader(value); reader && is_sum(reader->user); reader = only_reader(value)) {
    jit::Node* sum = reader->user;
    const double rest_weight = *weight_in_sum(sum, 1 - reader->offset);
    jit::Value* rest = sum->input(1 - reader->offset);
    const auto number = constant_number(rest);
    if (number && reader->offset != 0) break;
    value = sum->output();
    if (number) {
      sums.of_numbers.push_back(sum);
      sums.number += *number * rest_weight;
      continue;
    }
    // What is left of the first sum takes its place as it is, also as memory that may be written to.
    if (rest_weight != 1 || !only_reader(rest) || !memory.is_private(rest) || is_in_loop_behind(sum, rest->node())) break;
    sums.removal = Replace{sum, rest};
    weight *= *weight_in_sum(sum, reader->offset);
    for (const Addend& addend : addends_of(rest, rest_weight)) sums.beside.push_back({addend.value, addend.weight / weight});
    break;
  }
  return sums;
}

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

Answer absorb_beside(const Site& site) {
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

}  // namespace

std::optional<Plan> plan_sideways(const Norm& norm, const algebra::Affine& affine, const Knowledge& known) {
  const Sums sums = sums_above(norm.node()->output(0), known.store.memory());
  const auto lies_in_order = [](const Addend& addend) { return is_dense(addend.value); };
  if (!sums.removal || !std::all_of(sums.beside.begin(), sums.beside.end(), lies_in_order)) return std::nullopt;
  for (const Addend& addend : sums.beside) {
    jit::Node* conv = addend.value->node();
    if (!is_forward_conv(conv) || conv->input(0) != norm.input()) continue;
    const algebra::Affine added{affine.scale / addend.weight, (affine.shift + sums.number) / addend.weight};
    const std::vector<Edit> planned;
    const Answer answer = absorb_beside({conv, 0, added, norm.dtype, norm.along_channels, known, planned});
    const auto* absorb = std::get_if<Absorb>(&answer);
    if (absorb == nullptr) continue;
    Plan plan{absorb->edits, Direction::sideways, {absorb->into}, {}};
    for (jit::Node* sum : sums.of_numbers) plan.edits.push_back(Replace{sum, norm.node()->output(0)});
    plan.edits.push_back(*sums.removal);
    return plan;
  }
  return std::nullopt;
}

}  // namespace bnfold
