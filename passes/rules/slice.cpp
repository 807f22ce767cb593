// A part of a value, cut along a dimension, has a part of its affine.
//
//   before   x --> norm(scale, shift) --> chunk --> y1, y2          after   x --> chunk --> norm(scale_1, shift_1), norm(scale_2, shift_2)
//
// Conditions  where it is cut is constant                              operand_not_constant
//             the list of the parts is taken apart at once             value_in_container
//             along the channels: the size of x there is known         sizes_unknown
// Backward    no rule: a norm makes its output dense, and a part in its place may lie in memory as no view behind it can take.
#include <algorithm>

#include "graph/constants.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<int64_t> cut_dimension(const Site& site) {
  return constant_dimension(site.node->namedInput("dim"), site.affine.rank());
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "where it is cut is computed while the module runs"};
}

Decline unknown_size(const Site& site) {
  return {Reason::sizes_unknown, site.node, "the number of channels that are cut is not known"};
}

// The node that takes apart the list of parts, null where something else does.
jit::Node* unpacking(const jit::Node* node) {
  const auto& uses = node->output()->uses();
  return uses.size() == 1 && uses[0].user->kind() == jit::prim::ListUnpack ? uses[0].user : nullptr;
}

// The lengths of the parts of chunk and split along the cut.
std::optional<std::vector<int64_t>> lengths_of(const jit::Node* node, int64_t size, size_t parts) {
  if (node->input(1)->type()->kind() == c10::TypeKind::ListType) return constant_ints(node->input(1));
  const auto number = constant_int(node->input(1));
  if (!number || *number <= 0) return std::nullopt;
  const int64_t length = node->kind() == jit::aten::chunk ? (size + *number - 1) / *number : *number;
  std::vector<int64_t> lengths;
  for (int64_t rest = size; rest > 0; rest -= length) lengths.push_back(std::min(rest, length));
  if (lengths.size() != parts) return std::nullopt;
  return lengths;
}

}  // namespace

Answer slice_forward(const Site& site) {
  const auto dimension = cut_dimension(site);
  if (!dimension) return not_constant(site);
  const int64_t size = site.affine.size_along(*dimension);
  if (size == 1) return to_output(site, site.affine);
  if (site.known.extents.of(site.node->input(0), *dimension).value_or(size) != size) return unknown_size(site);
  const auto bound = [&](const char* name, int64_t otherwise) -> std::optional<int64_t> {
    const jit::Value* value = site.node->namedInput(name);
    if (value->type()->kind() == c10::TypeKind::NoneType) return otherwise;
    auto number = constant_int(value);
    if (number && *number < 0) *number += size;
    if (number) *number = std::clamp<int64_t>(*number, 0, size);
    return number;
  };
  const auto start = bound("start", 0);
  const auto end = bound("end", size);
  if (!start || !end || *end <= *start || constant_int(site.node->namedInput("step")) != 1) return not_constant(site);
  return to_output(site, algebra::part(site.affine, *dimension, *start, *end - *start));
}

Answer split_forward(const Site& site) {
  const auto dimension = cut_dimension(site);
  if (!dimension) return not_constant(site);
  jit::Node* parts = unpacking(site.node);
  if (parts == nullptr) return Decline{Reason::value_in_container, site.node, "the list of its parts is not taken apart at once"};
  Pass pass;
  if (site.affine.size_along(*dimension) == 1) {
    for (jit::Value* part : parts->outputs()) pass.moves.push_back({part, site.affine, Way::forward});
    return pass;
  }
  const auto lengths = lengths_of(site.node, site.affine.size_along(*dimension), parts->outputs().size());
  if (!lengths) return unknown_size(site);
  int64_t start = 0;
  for (size_t i = 0; i < lengths->size(); ++i) {
    pass.moves.push_back({parts->outputs()[i], algebra::part(site.affine, *dimension, start, lengths->at(i)), Way::forward});
    start += lengths->at(i);
  }
  return pass;
}

}  // namespace bnfold
