#include "plan/sideways.h"

#include <algorithm>

#include "graph/addends.h"
#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/memory.h"
#include "graph/order_in_memory.h"
#include "plan/conditions.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The sums of a value and numbers, and the first one of tensors behind them. What is left of that one takes its place, with the size, the
// dtype and the order in memory that the convolution among its addends has; a later sum could not tell them.
struct Sums {
  std::vector<jit::Node*> of_numbers;  // first the sums of the value and a number
  bool is_first = false;               // whether the value is the first operand there
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
    sums.is_first = reader->offset == 0;
    weight *= *weight_in_sum(sum, reader->offset);
    for (const Addend& addend : addends_of(rest, rest_weight)) sums.beside.push_back({addend.value, addend.weight / weight});
    break;
  }
  return sums;
}

}  // namespace

std::optional<Plan> plan_sideways(const Norm& norm, const algebra::Affine& affine, const Knowledge& known) {
  const Sums sums = sums_above(norm.node()->output(0), known.store.memory());
  const auto lies_in_order = [&](const Addend& addend) {
    return lies_as_sum(addend.value, norm.input(), sums.is_first, known.store);
  };
  if (!sums.removal || !std::all_of(sums.beside.begin(), sums.beside.end(), lies_in_order)) return std::nullopt;
  for (const Addend& addend : sums.beside) {
    jit::Node* conv = addend.value->node();
    if (!is_forward_conv(conv) || conv->input(0) != norm.input()) continue;
    const algebra::Affine added{affine.scale / addend.weight, (affine.shift + sums.number) / addend.weight};
    const std::vector<Edit> planned;
    const Answer answer = absorb_identity({conv, 0, added, norm.dtype, norm.along_channels, known, planned});
    const auto* absorb = std::get_if<Absorb>(&answer);
    if (absorb == nullptr || why_not_centered(absorb->edits, norm, affine.shift)) continue;
    Plan plan{absorb->edits, Direction::sideways, {absorb->into}, {}};
    for (jit::Node* sum : sums.of_numbers) plan.edits.push_back(Replace{sum, norm.node()->output(0)});
    plan.edits.push_back(*sums.removal);
    return plan;
  }
  return std::nullopt;
}

}  // namespace bnfold
