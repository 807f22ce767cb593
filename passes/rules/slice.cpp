// A part of a value, cut along a dimension, has a part of its affine, and what is wanted of the part is wanted of the whole.
//
//   before   x --> norm(scale, shift) --> chunk --> y1, y2          after   x --> chunk --> norm(scale_1, shift_1), norm(scale_2, shift_2)
//            x --> x[:, :, :-2] --> norm(scale, shift) --> y        after   norm(scale, shift) of x --> x[:, :, :-2] --> y
//            x --> x[:, :c] --> norm(scale, shift) --> y            after   norm([scale, 1], [shift, 0]) of x --> x[:, :c] --> y
//            x --> chunk --> the same norm of each --> y1, y2       after   norm(scale, shift) of x --> chunk --> y1, y2
//
// Formula     Along a dimension along which the affine is constant every part has the affine of the whole. Along the channels the part from
//             `start` on has the part of the affine from `start` on, and behind it the other channels have scale 1 and shift 0.
// Conditions  the dimension is a constant, and so are, along the channels, the
//             bounds, with a step of 1                                     operand_not_constant
//             the list of the parts is taken apart at once                 value_in_container
//             along the channels: the size of x there is known             sizes_unknown
//             behind it: a step of 1, unless there are three dimensions at most   memory_order_unknown
//             behind a part of a list: no other reader has the same one,
//             nor, where the affine is constant along the cut, any other,
//             but a norm with this affine, which goes as well              value_has_other_readers
// Memory      A part is not dense, as what a norm makes is: where its order in memory could be seen, a copy takes the place of the norm.
#include <algorithm>

#include "graph/constants.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"
#include "knowledge/extents.h"
#include "knowledge/find_norms.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<int64_t> cut_dimension(const jit::Node* node, int64_t rank) {
  return constant_dimension(node->namedInput("dim"), rank);
}

// Whether the parts have one dimension less.
bool drops_dimension(const jit::Node* cut) {
  return cut->kind() == jit::aten::select || operator_of(cut).shape == Shape::unbound;
}

int64_t rank_of_whole(const Site& site, const jit::Node* cut) {
  return site.affine.rank() + (drops_dimension(cut) ? 1 : 0);
}

// The affine of a part, with all dimensions of the whole; and that of the whole, with those of a part.
algebra::Affine as_of_whole(const Site& site, const jit::Node* cut, int64_t dimension) {
  return drops_dimension(cut) ? algebra::with_dimension(site.affine, dimension) : site.affine;
}

algebra::Affine as_of_part(const algebra::Affine& affine, const jit::Node* cut, int64_t dimension) {
  return drops_dimension(cut) ? algebra::without_dimension(affine, dimension) : affine;
}

bool skips(const jit::Node* cut) {
  return has_argument(cut, "step") && constant_int(cut->namedInput("step")) != 1;
}

Decline not_constant(const Site& site) {
  return {Reason::operand_not_constant, site.node, "where it is cut is computed while the module runs"};
}

Decline unknown_size(const Site& site) {
  return {Reason::sizes_unknown, site.node, "the number of channels that are cut is not known"};
}

// The readers of the list that chunk, split or unbind make, where they only take it apart, or ask for its length.
std::optional<std::vector<jit::Node*>> takers_of(const jit::Node* cut) {
  std::vector<jit::Node*> takers;
  for (const jit::Use& use : cut->output()->uses()) {
    if (use.user->kind() != jit::aten::len) takers.push_back(use.user);
  }
  const bool unpacked = takers.size() == 1 && takers[0]->kind() == jit::prim::ListUnpack;
  const auto picks = [](const jit::Node* taker) { return taker->kind() == jit::aten::__getitem__; };
  if (!unpacked && !std::all_of(takers.begin(), takers.end(), picks)) return std::nullopt;
  return takers;
}

// Which part of the list `value` is, of `parts`; nothing where that is computed.
std::optional<size_t> place_of(const jit::Value* value, size_t parts) {
  if (value->node()->kind() == jit::prim::ListUnpack) return value->offset();
  auto place = constant_int(value->node()->input(1));
  if (place && *place < 0) *place += static_cast<int64_t>(parts);
  if (!place || *place < 0 || *place >= static_cast<int64_t>(parts)) return std::nullopt;
  return static_cast<size_t>(*place);
}

std::vector<CutRange> ranges_of(const std::vector<int64_t>& lengths) {
  std::vector<CutRange> ranges;
  int64_t start = 0;
  for (const int64_t length : lengths) {
    ranges.push_back({start, length});
    start += length;
  }
  return ranges;
}

// Where the parts of a list lie in `size` channels.
std::optional<std::vector<CutRange>> ranges_of(const jit::Node* cut, int64_t size, const std::vector<jit::Node*>& takers) {
  const auto lengths = lengths_of_pieces(cut, size);
  if (!lengths) return std::nullopt;
  const bool unpacked = !takers.empty() && takers[0]->kind() == jit::prim::ListUnpack;
  if (unpacked && takers[0]->outputs().size() != lengths->size()) return std::nullopt;
  return ranges_of(*lengths);
}

// The norm that alone reads `part`, where it computes the affine of the site and nobody sees that its memory becomes that of the whole.
jit::Node* same_norm_behind(const Site& site, const jit::Value* part) {
  const auto reader = only_reader(part);
  if (!reader || reader->offset != 0 || reader->user->kind() != jit::aten::batch_norm) return nullptr;
  jit::Node* node = reader->user;
  if (node->owningBlock() != part->node()->owningBlock()) return nullptr;
  const auto norm = read_norm(node, site.known.store);
  if (!norm || !std::holds_alternative<algebra::Affine>(norm->content)) return nullptr;
  if (norm->dtype != site.norm_dtype || !site.from_batch_norm) return nullptr;
  const bool is_same = algebra::is_same(norm->affine(site.affine.rank()), site.affine);
  const bool is_hidden = !is_order_visible(node->output(0)) && !site.known.store.memory().may_be_written(node->output(0));
  return is_same && is_hidden ? node : nullptr;
}

Pass wanted_of_the_whole(jit::Value* whole, const algebra::Affine& affine) {
  Pass pass{{{whole, affine, Way::backward}}};
  pass.cuts = true;
  return pass;
}

}  // namespace

Answer slice_forward(const Site& site) {
  if (site.place != 0) return not_constant(site);
  const auto dimension = cut_dimension(site.node, site.affine.rank());
  if (!dimension) return not_constant(site);
  const int64_t size = site.affine.size_along(*dimension);
  if (size == 1) return to_output(site, as_of_part(site.affine, site.node, *dimension));
  if (site.known.extents.of(site.node->input(0), *dimension).value_or(size) != size) return unknown_size(site);
  const auto range = range_of_cut(site.node, size);
  if (!range) return not_constant(site);
  const algebra::Affine part = algebra::part(site.affine, *dimension, range->start, range->length);
  return to_output(site, as_of_part(part, site.node, *dimension));
}

Answer slice_backward(const Site& site) {
  const auto dimension = cut_dimension(site.node, rank_of_whole(site, site.node));
  if (!dimension) return not_constant(site);
  const algebra::Affine affine = as_of_whole(site, site.node, *dimension);
  jit::Value* whole = site.node->input(0);
  if (affine.size_along(*dimension) == 1) {
    if (!skips(site.node) || site.affine.rank() <= 3) return wanted_of_the_whole(whole, affine);
    return Decline{Reason::memory_order_unknown, site.node, "a norm lays out what skips rows in another order than a copy does"};
  }
  const auto size = site.known.extents.of(whole, *dimension);
  if (!size) return unknown_size(site);
  const auto range = range_of_cut(site.node, *size);
  if (!range) return not_constant(site);
  if (range->length != affine.size_along(*dimension)) return unknown_size(site);
  return wanted_of_the_whole(whole, algebra::as_part(affine, *dimension, range->start, range->length, *size));
}

Answer split_forward(const Site& site) {
  const auto dimension = cut_dimension(site.node, site.affine.rank());
  if (!dimension) return not_constant(site);
  const auto takers = takers_of(site.node);
  if (!takers) return Decline{Reason::value_in_container, site.node, "the list of its parts is not taken apart at once"};
  std::vector<jit::Value*> parts;
  for (jit::Node* taker : *takers) parts.insert(parts.end(), taker->outputs().begin(), taker->outputs().end());
  Pass pass;
  if (site.affine.size_along(*dimension) == 1) {
    for (jit::Value* part : parts) {
      pass.moves.push_back({part, as_of_part(site.affine, site.node, *dimension), Way::forward});
    }
    return pass;
  }
  const auto ranges = ranges_of(site.node, site.affine.size_along(*dimension), *takers);
  if (!ranges) return unknown_size(site);
  for (jit::Value* part : parts) {
    const auto place = place_of(part, ranges->size());
    if (!place) return not_constant(site);
    const CutRange& range = ranges->at(*place);
    const algebra::Affine affine = algebra::part(site.affine, *dimension, range.start, range.length);
    pass.moves.push_back({part, as_of_part(affine, site.node, *dimension), Way::forward});
  }
  return pass;
}

Answer piece_backward(const Site& site) {
  jit::Node* cut = site.node->input(0)->node();
  if (!makes_pieces(cut)) return Decline{Reason::value_in_container, site.node, "it takes a list apart that is built elsewhere"};
  const auto takers = takers_of(cut);
  if (!takers) return Decline{Reason::value_in_container, cut, "the list of its parts is not taken apart at once"};
  const auto dimension = cut_dimension(cut, rank_of_whole(site, cut));
  if (!dimension) return not_constant(site);
  const algebra::Affine affine = as_of_whole(site, cut, *dimension);
  const jit::Value* own = site.node->output(site.place);
  std::vector<jit::Value*> others;
  for (jit::Node* taker : *takers) {
    std::copy_if(taker->outputs().begin(), taker->outputs().end(), std::back_inserter(others),
                 [own](const jit::Value* part) { return part != own && !part->uses().empty(); });
  }
  const Decline is_shared{Reason::value_has_other_readers, cut, "another part of it has not the same norm behind it"};
  if (affine.size_along(*dimension) == 1) {
    Pass pass = wanted_of_the_whole(cut->input(0), affine);
    for (jit::Value* other : others) {
      jit::Node* norm = same_norm_behind(site, other);
      if (norm == nullptr) return is_shared;
      pass.edits.push_back(Replace{norm, other});
    }
    return pass;
  }
  const auto size = site.known.extents.of(cut->input(0), *dimension);
  const auto ranges = size ? ranges_of(cut, *size, *takers) : std::nullopt;
  if (!ranges) return unknown_size(site);
  const auto place = place_of(own, ranges->size());
  if (!place) return not_constant(site);
  for (const jit::Value* other : others) {
    const auto its = place_of(other, ranges->size());
    if (!its || its == place) return is_shared;
  }
  const CutRange& range = ranges->at(*place);
  if (range.length != site.affine.size_along(*dimension)) return unknown_size(site);
  return wanted_of_the_whole(cut->input(0), algebra::as_part(site.affine, *dimension, range.start, range.length, *size));
}

}  // namespace bnfold
