// The text of every reason.
#include <array>

#include "bnfold/report.h"

namespace bnfold {

namespace {

struct ReasonText {
  Reason reason;
  std::string_view name;
  std::string_view sentence;
  std::string_view advice;
};

constexpr std::array kReasons = {
    ReasonText{Reason::norm_in_training_mode, "norm_in_training_mode",
               "The norm uses the statistics of each batch, so it is no fixed affine.",
               "Call .eval() on the whole module before scripting or tracing it."},
    ReasonText{Reason::norm_without_running_statistics, "norm_without_running_statistics",
               "The norm has no running statistics, so it is no fixed affine.",
               "Nothing here; a norm that is trained with track_running_stats=True can fold."},
    ReasonText{Reason::norm_parameters_not_static, "norm_parameters_not_static",
               "A parameter or statistic of the norm is computed or changed while the module runs.",
               "Keep only the methods that don't change them: --preserve, preserved_attributes."},
    ReasonText{Reason::norm_statistics_not_finite, "norm_statistics_not_finite", "The norm's scale or shift is NaN or infinite.",
               "Look for the training step that diverged: the module returns no usable numbers either."},
    ReasonText{Reason::norm_channels_disagree, "norm_channels_disagree",
               "The norm's parameters and statistics have different lengths.",
               "Repair the norm; it may stand where no run comes."},
    ReasonText{Reason::value_has_other_readers, "value_has_other_readers",
               "Something else reads the value before it is normalized.",
               "Let the other readers take the normalized value, or a layer behind the norm take the norm."},
    ReasonText{Reason::value_changed_in_place, "value_changed_in_place",
               "The value is written in place between its layer and the norm.",
               "Write out of place, as y = y * mask; torch.where and torch.cat make new values too."},
    ReasonText{Reason::value_from_graph_input, "value_from_graph_input",
               "The value is an input of the module, and nothing before it could take the norm.",
               "Put a layer that can take the norm behind it, or move the norm into the preprocessing."},
    ReasonText{Reason::value_from_other_block, "value_from_other_block",
               "The value is computed in another branch, loop or fork than the norm.",
               "Let a constant decide the condition, loop over an nn.ModuleList, or trace the module."},
    ReasonText{Reason::affine_varies_elsewhere, "affine_varies_elsewhere",
               "The norm's channels are not the output channels of the layer.",
               "Check that the model means these channels: a transpose may be missing."},
    ReasonText{Reason::rank_unknown, "rank_unknown", "The number of dimensions of the value is not known or does not fit.",
               "Give example inputs (--input), or say the rank in the model, as flatten(1) does and squeeze() does not."},
    ReasonText{Reason::no_rule_for_operator, "no_rule_for_operator",
               "bnfold has no rule that takes a norm through this operator.",
               "Put the norm on the other side of the operator where the model allows it, or write a rule."},
    ReasonText{Reason::operand_not_constant, "operand_not_constant",
               "An argument that decides whether the fold is exact is not the constant it has to be.",
               "Make the argument a constant, or scale the weight instead."},
    ReasonText{Reason::weight_not_static, "weight_not_static",
               "The layer's weight or bias is computed or changed while the module runs.",
               "Compute the weight before the fold, as torch.nn.utils.parametrize.remove_parametrizations does."},
    ReasonText{Reason::weight_dtype_unsupported, "weight_dtype_unsupported",
               "A tensor is quantized, complex, sparse, without data, or of another dtype that can't be scaled exactly.",
               "Load the weights before the fold, and quantize behind it."},
    ReasonText{Reason::dtypes_differ, "dtypes_differ", "Norm and layer have dtypes that batch_norm can't combine.",
               "Give the layer and the norm the same dtype."},
    ReasonText{Reason::devices_differ, "devices_differ", "Norm and layer are on different devices.",
               "Move the whole module to one device, fold, and spread it afterwards."},
    ReasonText{Reason::channels_differ, "channels_differ", "Norm and layer have different numbers of channels.",
               "Repair the layer or the norm; they may stand where no run comes."},
    ReasonText{Reason::input_not_batched, "input_not_batched",
               "The convolution runs without a batch dimension, so the norm works along another dimension than its channels.",
               "Give example inputs with their batch dimension."},
    ReasonText{Reason::folded_weight_not_finite, "folded_weight_not_finite",
               "The folded weight would leave the range of its dtype.",
               "Fold in float and convert the result to bfloat16, which has the range of float."},
    ReasonText{Reason::operator_not_affine, "operator_not_affine", "No scale or shift passes this operator.",
               "Put the norm in front of this operator, behind a layer, or a layer behind the norm."},
    ReasonText{Reason::shift_at_padding, "shift_at_padding",
               "The operator reads padding, to which the norm's shift would not be added.",
               "Put a layer in front of the norm, or pad by reflect, replicate or circular before training."},
    ReasonText{Reason::shift_not_passable, "shift_not_passable", "A scale passes this operator, a shift does not.",
               "Put a layer in front of the norm, give the layer behind it a bias, or take a mean for a sum."},
    ReasonText{Reason::scale_not_positive, "scale_not_positive",
               "Only positive scales pass this operator, and the norm has others.",
               "Put the norm in front of this operator, behind a layer, which takes scales of any sign."},
    ReasonText{Reason::scale_not_invertible, "scale_not_invertible",
               "A value would have to be divided by a scale of 0, or by one too small or too large for its dtype.",
               "Prune the channels whose scale is 0."},
    ReasonText{Reason::mean_too_large, "mean_too_large",
               "The mean of the norm's input is large beside its deviation, and a layer that multiplies before it is taken off "
               "rounds coarsely.",
               "Put a layer in front of the norm, or fold and run the module in a wider dtype."},
    ReasonText{Reason::sizes_unknown, "sizes_unknown", "Sizes that the fold depends on are not known before the module runs.",
               "Say the sizes in the model: x.flatten(1) keeps images apart where reshape(-1, n) may not."},
    ReasonText{Reason::list_not_visible, "list_not_visible", "The concatenated list is built in a way that can't be followed.",
               "Write torch.cat([a, b], 1) with its parts, or trace the module."},
    ReasonText{Reason::memory_order_unknown, "memory_order_unknown",
               "A view behind the norm needs the memory order that the norm makes.",
               "Write flatten or reshape in the place of view."},
    ReasonText{Reason::value_is_output, "value_is_output",
               "The normalized value is an output of the module, and nothing behind it could take the norm.",
               "Nothing: what comes out has to be normalized. Leave out outputs that only training reads."},
    ReasonText{Reason::value_in_container, "value_in_container",
               "The value is put into a list, tuple or dict that can't be followed.", "Return only what is used."},
    ReasonText{Reason::cheaper_kept, "cheaper_kept",
               "Where the module is to run, the norm takes less time than what the fold would add.",
               "Nothing: the module is faster so. Without a target every norm is folded that can be."},
    ReasonText{Reason::widens_channels, "widens_channels",
               "The fold would spread a layer's channels wider, and int8 has one step size for all of them.",
               "Nothing where the module is quantized; else leave the target out."},
};

const ReasonText& text(Reason reason) {
  for (const ReasonText& entry : kReasons) {
    if (entry.reason == reason) return entry;
  }
  return kReasons.front();
}

}  // namespace

const std::vector<Reason>& all_reasons() {
  static const std::vector<Reason> reasons = [] {
    std::vector<Reason> all;
    all.reserve(std::size(kReasons));
    for (const ReasonText& entry : kReasons) all.push_back(entry.reason);
    return all;
  }();
  return reasons;
}

std::string_view name(Reason reason) {
  return text(reason).name;
}

std::string_view sentence(Reason reason) {
  return text(reason).sentence;
}

std::string_view advice(Reason reason) {
  return text(reason).advice;
}

std::string_view name(Direction direction) {
  switch (direction) {
    case Direction::backward:
      return "backward";
    case Direction::forward:
      return "forward";
    case Direction::sideways:
      return "sideways";
  }
  return "";
}

}  // namespace bnfold
