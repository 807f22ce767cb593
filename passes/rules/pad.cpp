// Padding lets an affine pass: by reflection, replication or around the circle always, with a constant where that can be changed.
//
//   before   x --> pad(value) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> pad(scale*value + shift) --> y
//            x --> norm(scale, shift) --> pad(value) --> y                  x --> pad((value - shift)/scale) --> norm(scale, shift) --> y
//
// Formula     Copies of x become copies of scale * x + shift; a constant becomes one number, so it must be the same for each channel.
// Conditions  padding sizes and mode are constants                         operand_not_constant
//             the affine is constant along the padded dimensions           affine_varies_elsewhere
//             constant padding: one number for all channels                shift_at_padding
//             in the range of the dtype                                    folded_weight_not_finite
#include <cmath>
#include <string>

#include "graph/constants.h"
#include "rules/rule.h"

#include <torch/csrc/jit/ir/constants.h>

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Which input holds the constant; nothing where there is none.
struct Padding {
  std::optional<size_t> constant_input;
  double constant = 0;
};

std::variant<Padding, Decline> padding_of(const Site& site) {
  const jit::Node* node = site.node;
  const auto sizes = constant_ints(node->input(1));
  if (!sizes) return Decline{Reason::operand_not_constant, node, "the amount of padding is computed while the module runs"};
  const int64_t rank = site.affine.rank();
  for (int64_t dimension = rank - static_cast<int64_t>(sizes->size()) / 2; dimension < rank; ++dimension) {
    if (dimension < 0 || site.affine.size_along(dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, node, "the norm's channels lie along a padded dimension"};
    }
  }
  const std::string operation = node->kind().toUnqualString();
  if (operation.rfind("reflection", 0) == 0 || operation.rfind("replication", 0) == 0) return Padding{};
  size_t place = 2;
  if (operation == "pad") {
    const auto mode = jit::toIValue(node->namedInput("mode"));
    if (!mode || !mode->isString())
      return Decline{Reason::operand_not_constant, node, "its mode is computed while the module runs"};
    if (mode->toStringRef() != "constant") return Padding{};
    place = 3;
  }
  const bool none = node->input(place)->type()->kind() == c10::TypeKind::NoneType;
  const auto constant = none ? std::optional<double>(0) : constant_number(node->input(place));
  if (!constant) return Decline{Reason::operand_not_constant, node, "what it pads with is computed while the module runs"};
  return Padding{place, *constant};
}

// The padding that stands where `values`, one for each channel, are wanted.
Answer with_constant(const Site& site, const Padding& padding, const at::Tensor& values, Pass pass) {
  if (!padding.constant_input) return pass;
  const double first = values.flatten()[0].item<double>();
  if (!std::isfinite(first) || !values.eq(first).all().item<bool>()) {
    return Decline{Reason::shift_at_padding, site.node, "the channels would need different constants as padding"};
  }
  if (!at::full({}, first, at::kDouble).to(site.norm_dtype).isfinite().item<bool>()) {
    return Decline{Reason::folded_weight_not_finite, site.node, "the constant leaves the range of the dtype"};
  }
  if (first != padding.constant) pass.edits.push_back(SetNumber{site.node, *padding.constant_input, first});
  return pass;
}

}  // namespace

Answer pad_forward(const Site& site) {
  const auto read = padding_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Padding& padding = std::get<Padding>(read);
  if (padding.constant_input && padding.constant == 0 && !algebra::has_shift(site.affine)) return to_output(site, site.affine);
  return with_constant(site, padding, (padding.constant - site.affine.shift) / site.affine.scale, to_output(site, site.affine));
}

Answer pad_backward(const Site& site) {
  const auto read = padding_of(site);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Padding& padding = std::get<Padding>(read);
  return with_constant(site, padding, padding.constant * site.affine.scale + site.affine.shift, to_input(site, site.affine));
}

}  // namespace bnfold
