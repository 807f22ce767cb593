#include "plan/conditions.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/memory.h"
#include "graph/order_in_memory.h"
#include "graph/swapped_channels.h"
#include "knowledge/dtypes.h"
#include "knowledge/extents.h"
#include "plan/readers.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A norm takes narrower values than its parameters, and tells nothing of their dtype.
bool is_of_a_norm(const Edit& edit) {
  const auto* set = std::get_if<SetInput>(&edit);
  return set != nullptr && is_normalizing(set->node);
}

// Whether a loop takes a list apart, one part in each round: for part in chunks.
bool takes_each_part_once(const jit::Node* reader) {
  const jit::Node* loop = reader->owningBlock()->owningNode();
  if (reader->kind() != jit::aten::__getitem__ || loop == nullptr || loop->kind() != jit::prim::Loop) return false;
  const jit::Node* cut = reader->input(0)->node();
  return reader->input(1) == reader->owningBlock()->inputs()[0] && makes_pieces(cut) && cut->owningBlock() == loop->owningBlock();
}

bool is_bound(const Edit& edit) {
  return std::holds_alternative<Bound>(edit);
}

template <typename IsWanted>
bool any_set(const std::vector<Edit>& edits, const IsWanted& is_wanted) {
  return std::any_of(edits.begin(), edits.end(), [&is_wanted](const Edit& edit) {
    const auto* set = std::get_if<SetInput>(&edit);
    return set != nullptr && is_wanted(*set);
  });
}

// Whether a layer or a norm gets a tensor of `dtype`.
bool sets(const std::vector<Edit>& edits, at::ScalarType dtype) {
  return any_set(edits, [dtype](const SetInput& set) { return set.tensor.scalar_type() == dtype; });
}

bool sets_layer(const std::vector<Edit>& edits, at::ScalarType dtype) {
  return any_set(edits, [dtype](const SetInput& set) { return is_layer(set.node) && set.tensor.scalar_type() == dtype; });
}

// Whether a view has the sizes that its input has, and so lies in memory as that does. One size may be unknown, as the others tell it.
bool is_view_of_all(const jit::Node* view, const Knowledge& known) {
  const auto rank = known.ranks.of(view->input(0));
  if (!rank || known.ranks.of(view->output()) != rank) return false;
  int64_t unknown = 0;
  for (int64_t dimension = 0; dimension < *rank; ++dimension) {
    const auto before = known.extents.of(view->input(0), dimension);
    const auto after = known.extents.of(view->output(), dimension);
    if (before && after && *before != *after) return false;
    unknown += before && after ? 0 : 1;
  }
  return unknown <= 1;
}

double root_mean_square(const at::Tensor& values) {
  return values.square().mean().sqrt().item<double>();
}

}  // namespace

std::optional<Decline> why_not_written(const jit::Value* value, const ParameterStore& store) {
  const auto& writers = store.memory().writers_of(value);
  if (writers.empty()) return std::nullopt;
  return written_by(writers.front());
}

std::optional<Decline> why_not_reached(const jit::Value* value, const jit::Node* reader, const Norm& norm) {
  const jit::Node* producer = value->node();
  if (norm.is_made_by(producer)) {
    return Decline{Reason::value_has_other_readers, producer, "the value depends on the norm itself"};
  }
  if (producer->kind() != jit::prim::Param) {
    const jit::Node* taker = takes_each_part_once(reader) ? reader->input(0)->node() : reader;
    if (!is_in_loop_behind(taker, producer)) return std::nullopt;
    return Decline{Reason::value_from_other_block, producer, "a loop normalizes again and again what is computed before it"};
  }
  const bool graph_input = producer->owningBlock() == producer->owningGraph()->block();
  return Decline{graph_input ? Reason::value_from_graph_input : Reason::value_from_other_block, norm.node(),
                 fmt::format("%{} comes from outside", value->debugName())};
}

bool is_along_last(const jit::Value* value, const algebra::Affine& affine) {
  return affine.rank() == 1 && value->node()->kind() == jit::aten::linear;
}

bool is_of_any_rank(const jit::Value* value, const algebra::Affine& affine) {
  return is_along_last(value, affine) || swaps_channels_of_linear(value->node(), affine);
}

std::optional<Decline> why_not_of_rank(const jit::Value* value, const algebra::Affine& affine, const Knowledge& known) {
  if (is_of_any_rank(value, affine)) return std::nullopt;
  if (known.ranks.allow(value, affine.rank())) return std::nullopt;
  return Decline{Reason::rank_unknown, value->node(),
                 fmt::format("a value of rank {} where {} was expected", *known.ranks.of(value), affine.rank())};
}

std::optional<Decline> why_not_viewed(const jit::Node* node, const Norm& norm, const Knowledge& known) {
  if (node->kind() != jit::aten::view || is_dense(norm.input()) || is_contiguous(node->input(0)) || is_view_of_all(node, known))
    return std::nullopt;
  return Decline{Reason::memory_order_unknown, node, "a view of what may be permuted in memory"};
}

std::optional<Decline> why_not_along(const std::vector<Edit>& edits, const Norm& norm) {
  const auto node_of = [](const Edit& edit) { return std::visit([](const auto& one) { return one.node; }, edit); };
  for (const Edit& edit : edits) {
    const jit::Node* node = node_of(edit);
    if (!std::holds_alternative<Replace>(edit) || !is_normalizing(node)) continue;
    const auto edits_of_it = std::count_if(edits.begin(), edits.end(), [&](const Edit& other) { return node_of(other) == node; });
    if (edits_of_it == 1 && !norm.is_made_by(node)) continue;
    return Decline{Reason::value_has_other_readers, node, "the norm of another part depends on this one"};
  }
  return std::nullopt;
}

std::optional<Decline> why_not_bounded(const std::vector<Edit>& edits, const Norm& norm, const Knowledge& known) {
  if (std::none_of(edits.begin(), edits.end(), is_bound)) return std::nullopt;
  bool told = dtype_of(norm.input(), known.store) == norm.dtype;
  for (const Edit& edit : edits) {
    const auto* bound = std::get_if<Bound>(&edit);
    if (bound != nullptr && !bound->node->isDominatedBy(norm.node())) {
      return Decline{Reason::scale_not_positive, bound->node,
                     fmt::format("{} before the norm would have to become a bound", bound->node->kind().toQualString())};
    }
    const auto* set = std::get_if<SetInput>(&edit);
    const bool number = set != nullptr && set->tensor.dim() == 0;  // which takes the dtype of what it is added to
    if (set == nullptr || number) continue;
    told |= is_layer(set->node);
    if (set->tensor.scalar_type() == norm.dtype) continue;
    return Decline{Reason::dtypes_differ, set->node, "a norm in another dtype than its input can't become a bound"};
  }
  if (told) return std::nullopt;
  return Decline{Reason::dtypes_differ, norm.node(), "nothing tells whether its input has the norm's dtype, as a bound will"};
}

std::optional<Decline> why_not_in_dtype(const std::vector<Edit>& edits, const Norm& norm, const Knowledge& known,
                                        bool reads_forward) {
  const auto input_dtype = dtype_of(norm.input(), known.store);
  const bool told_by_layers = !edits.empty() && !reads_forward && std::none_of(edits.begin(), edits.end(), is_of_a_norm);
  if (!norm.along_channels && !told_by_layers && input_dtype != norm.dtype) {
    return Decline{Reason::dtypes_differ, norm.node(), "nothing tells whether its input has the dtype of its constants"};
  }
  for (const Edit& edit : edits) {
    const auto* set = std::get_if<SetInput>(&edit);
    if (set == nullptr || !is_layer(set->node) || !set->node->isBefore(norm.node())) continue;
    const at::ScalarType dtype = set->tensor.scalar_type();
    if (dtype == norm.dtype || input_dtype == dtype) continue;
    return Decline{Reason::dtypes_differ, set->node, "the norm may read a wider value than this layer makes"};
  }
  return std::nullopt;
}

std::optional<Decline> why_not_in_range(const std::vector<Edit>& edits, const Norm& norm, double stretch) {
  const at::ScalarType dtype = sets(edits, at::kHalf) ? at::kHalf : norm.dtype;
  const double most = dtype == at::kHalf ? 0x1p4 : dtype == at::kDouble ? 0x1p256 : 0x1p32;
  if (stretch <= most) return std::nullopt;
  return Decline{Reason::scale_not_invertible, norm.node(),
                 fmt::format("other values would be scaled by up to {:.1e}, too much for {}", stretch, toString(dtype))};
}

std::optional<Decline> why_not_in_spread(const std::vector<Edit>& edits, const Norm& norm, const at::Tensor& lent) {
  const bool narrow = sets(edits, at::kHalf) || sets(edits, at::kBFloat16);
  const double deviations = narrow ? 1 : 8;
  const Spread& spread = *norm.spread;
  const at::Tensor beyond = lent.flatten().abs() - spread.mean.abs();
  if (beyond.le(spread.deviation * deviations).all().item<bool>()) return std::nullopt;
  return Decline{
      Reason::scale_not_invertible, norm.node(),
      fmt::format("shift / scale is larger than the mean and {} standard deviations of what others read too", deviations)};
}

std::optional<Decline> why_not_centered(const std::vector<Edit>& edits, const Norm& norm, const at::Tensor& shift) {
  const bool narrow = sets_layer(edits, at::kHalf) || sets_layer(edits, at::kBFloat16);
  if (!norm.spread || (!narrow && !sets_layer(edits, at::kFloat))) return std::nullopt;
  const double most = narrow ? 16 : 1024;
  const auto& affine = std::get<algebra::Affine>(norm.content);
  const at::Tensor mean = affine.scale * norm.spread->mean;
  const at::Tensor left = at::hypot(affine.scale * norm.spread->deviation, mean + affine.shift);
  const double times = root_mean_square(at::minimum(mean.abs(), shift.flatten().abs())) / root_mean_square(left);
  if (!(times > most)) return std::nullopt;
  return Decline{Reason::mean_too_large, norm.node(),
                 fmt::format("the means are {:.0f} times what the norm leaves, and {} is rounded coarsely beyond {:.0f}", times,
                             narrow ? "a layer in half or bfloat16" : "a layer in float", most)};
}

}  // namespace bnfold
