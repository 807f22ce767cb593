// Padding lets an affine pass: by reflection, replication or around the circle always, with a constant where that can be changed.
//
//   before   x --> pad(value) --> norm(scale, shift) --> y          after   norm(scale, shift) of x --> pad(scale*value + shift) --> y
//            x --> norm(scale, shift) --> pad(value) --> y                  x --> pad((value - shift)/scale) --> norm(scale, shift) --> y
//            x --> norm(scale, shift) --> pad of channels --> y             x --> pad of channels --> norm([scale, 1], [shift, 0]) --> y
//
// Formula     Copies of x become copies of scale * x + shift; a constant becomes one number, so it must be the same for each channel. Channels
//             that are added are constants as well, and stay as they are.
// Conditions  padding sizes and mode are constants                         operand_not_constant
//             the affine is constant along the padded dimensions, or it is
//             before it, channels alone are added, and with a constant     affine_varies_elsewhere
//             their number is known                                        sizes_unknown
//             constant padding: one number for all channels                shift_at_padding
//             in the range of the dtype                                    folded_weight_not_finite
#include <cmath>
#include <vector>

#include "graph/constants.h"
#include "graph/operators.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Which input holds the constant; nothing where there is none.
struct Padding {
  std::optional<size_t> constant_input;
  double constant = 0;
};

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "the amount of padding is computed while the module runs"};
}

// How many elements are added before and behind a dimension.
struct Amount {
  int64_t dimension;
  int64_t before;
  int64_t behind;
};

using Amounts = std::vector<Amount>;

// Of the dimensions that are padded. The last dimension comes first.
std::optional<Amounts> amounts_of(const Site& site) {
  const auto sizes = constant_ints(site.node->input(1));
  if (!sizes) return std::nullopt;
  Amounts amounts;
  int64_t dimension = site.affine.rank();
  for (size_t i = 0; i + 1 < sizes->size(); i += 2) {
    const Amount amount{--dimension, sizes->at(i), sizes->at(i + 1)};
    if (amount.before != 0 || amount.behind != 0) amounts.push_back(amount);
  }
  return amounts;
}

std::variant<Padding, Decline> padding_of(const Site& site, const Amounts& amounts) {
  const jit::Node* node = site.node;
  for (const Amount& amount : amounts) {
    if (amount.dimension < 0 || site.affine.size_along(amount.dimension) != 1) {
      return Decline{Reason::affine_varies_elsewhere, node, "the norm's channels lie along a padded dimension"};
    }
  }
  const auto constantly = pads_with_constant(node);
  if (!constantly) return Decline{Reason::operand_not_constant, node, "its mode is computed while the module runs"};
  if (!*constantly) return Padding{};
  const size_t place = node->inputs().size() - 1;
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

// The channels that are added, with a constant, and nothing else.
std::optional<Amount> added_channels(const Site& site, const Amounts& amounts) {
  if (amounts.size() != 1) return std::nullopt;
  const Amount& amount = amounts.front();
  const bool adds = amount.dimension >= 0 && amount.before >= 0 && amount.behind >= 0;
  if (!adds || site.affine.size_along(amount.dimension) == 1) return std::nullopt;
  return pads_with_constant(site.node) == true ? std::optional<Amount>(amount) : std::nullopt;
}

Answer behind_added_channels(const Site& site, const Amount& added) {
  const int64_t channels = site.affine.size_along(added.dimension);
  if (site.known.extents.of(site.node->input(0), added.dimension).value_or(channels) != channels) {
    return Decline{Reason::sizes_unknown, site.node, "channels are added to a value that is broadcast"};
  }
  const int64_t total = added.before + channels + added.behind;
  return to_output(site, algebra::as_part(site.affine, added.dimension, added.before, channels, total));
}

}  // namespace

Answer pad_forward(const Site& site) {
  const auto amounts = amounts_of(site);
  if (!amounts) return not_constant(site);
  if (const auto added = added_channels(site, *amounts)) return behind_added_channels(site, *added);
  const auto read = padding_of(site, *amounts);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Padding& padding = std::get<Padding>(read);
  if (padding.constant_input && padding.constant == 0 && !algebra::has_shift(site.affine)) return to_output(site, site.affine);
  return with_constant(site, padding, (padding.constant - site.affine.shift) / site.affine.scale, to_output(site, site.affine));
}

Answer pad_backward(const Site& site) {
  const auto amounts = amounts_of(site);
  if (!amounts) return not_constant(site);
  const auto read = padding_of(site, *amounts);
  if (const auto* decline = std::get_if<Decline>(&read)) return *decline;
  const Padding& padding = std::get<Padding>(read);
  return with_constant(site, padding, padding.constant * site.affine.scale + site.affine.shift, to_input(site, site.affine));
}

}  // namespace bnfold
