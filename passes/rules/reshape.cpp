// A view with other sizes lets an affine pass whose channels it keeps, splits, or joins with dimensions of known size.
//
//   before   x [N,C,H,W] --> view [N,g,C/g,H,W] --> norm --> y        after   norm of x --> view --> y, and the other way round
//            x [N,C,H,W] --> norm --> view [N,F] --> linear           after   x --> view [N,F] --> norm, repeated F/C times --> linear
//            x [N,F] --> view [-1,C,h,w] --> norm --> y               after   norm, repeated h*w times, of x --> view --> y
//            x [N*T,C,H,W] --> view [N,T,C,H,W] --> norm --> y        after   norm of x --> view --> y
//
// Formula     The affine is viewed as the value is. A size is a product of numbers and of sizes that are not known. What stands in front of the
//             channels, on both sides, is equal as such a product, or else what begins with them is; then both sides describe the same elements
//             from there on. A dimension of C channels becomes dimensions whose product is C, or the other way, together with as many of the
//             dimensions beside it as it takes. One unknown size among known ones is what the known ones leave. Where the numbers that
//             a view is given tell too little, as those of view(n, c * h * w), what reads it tells its sizes.
// Conditions  before it: the value is its input, not what tells the sizes                                          operand_not_constant
//             the sizes before and after can be matched in that way                                                sizes_unknown
//             behind it: the rank before is known, or a linear layer makes the value and takes all of the channels sizes_unknown
#include <algorithm>
#include <string_view>

#include "graph/constants.h"
#include "graph/list_maker.h"
#include "graph/operators.h"
#include "rules/rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A size that is not known: of `value` along `dimension`, the number `value` itself, or all sizes of `value` but the last one.
using Unknown = std::pair<const jit::Value*, int64_t>;
constexpr int64_t kNumber = -1;
constexpr int64_t kRows = -2;

// A size: a number times sizes that are not known.
struct Size {
  int64_t number = 1;
  std::vector<Unknown> unknowns = {};  // in order

  bool is_known() const { return unknowns.empty(); }
  bool operator==(const Size& other) const { return number == other.number && unknowns == other.unknowns; }
};

using Sizes = std::vector<Size>;

Size operator*(const Size& one, const Size& other) {
  Size product{one.number * other.number};
  std::merge(one.unknowns.begin(), one.unknowns.end(), other.unknowns.begin(), other.unknowns.end(),
             std::back_inserter(product.unknowns));
  return product;
}

std::optional<Size> operator/(const Size& whole, const Size& part) {
  const bool contains = std::includes(whole.unknowns.begin(), whole.unknowns.end(), part.unknowns.begin(), part.unknowns.end());
  if (part.number <= 0 || whole.number % part.number != 0 || !contains) return std::nullopt;
  Size quotient{whole.number / part.number};
  std::set_difference(whole.unknowns.begin(), whole.unknowns.end(), part.unknowns.begin(), part.unknowns.end(),
                      std::back_inserter(quotient.unknowns));
  return quotient;
}

Size product(Sizes::const_iterator begin, Sizes::const_iterator end) {
  Size result;
  for (; begin != end; ++begin) result = result * *begin;
  return result;
}

Size product(const Sizes& sizes) {
  return product(sizes.begin(), sizes.end());
}

// Reads the sizes that values have and views are given.
class SizeReader {
 public:
  explicit SizeReader(const Knowledge& known) : known_(known) {}

  // The sizes of a value of `rank` dimensions.
  Sizes of_value(const jit::Value* value, int64_t rank) {
    Sizes sizes;
    for (int64_t dimension = 0; dimension < rank; ++dimension) sizes.push_back(of(value, dimension));
    return sizes;
  }

  // Those that view and its kind make of a value of sizes `before`, of which -1 is what the others leave. Nothing where the list is built elsewhere.
  std::optional<Sizes> of_view(const jit::Node* node, const std::optional<Sizes>& before) {
    if (node->kind() == jit::aten::reshape_as || node->kind() == jit::aten::view_as) {
      const auto rank = known_.ranks.of(node->input(1));
      return rank ? std::optional<Sizes>(of_value(node->input(1), *rank)) : std::nullopt;
    }
    auto sizes = listed(node->input(1));
    if (!sizes) return std::nullopt;
    for (size_t i = 0; i < sizes->size(); ++i) {
      Size& size = sizes->at(i);
      const bool open = size.number == -1 && size.is_known();
      const auto known = open ? known_.extents.of(node->output(), static_cast<int64_t>(i)) : std::nullopt;
      if (open) size = known ? Size{*known} : rest_of(*sizes, i, before).value_or(Size{1, {{node->output(), i}}});
      if (size.number <= 0) size = {1, {{node->output(), i}}};
    }
    return sizes;
  }

  // The sizes of what a view makes, where its readers tell more than `sizes`, which were read of what it is given.
  Sizes as_read(const jit::Node* node, Sizes sizes) const {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto known = sizes[i].is_known() ? std::nullopt : known_.extents.of(node->output(), static_cast<int64_t>(i));
      if (known && *known > 0) sizes[i] = {*known};
    }
    return sizes;
  }

  // Those of unflatten, likewise.
  std::optional<Sizes> of_unflatten(const jit::Node* node, const Sizes& before) {
    const auto dimension = constant_dimension(node->namedInput("dim"), static_cast<int64_t>(before.size()));
    auto parts = listed(node->namedInput("sizes"));
    if (!dimension || !parts) return std::nullopt;
    for (size_t i = 0; i < parts->size(); ++i) {
      const int64_t place = *dimension + static_cast<int64_t>(i);
      Size& size = parts->at(i);
      const bool open = size.number == -1 && size.is_known();
      if (open) size = rest_of(*parts, i, Sizes{before.at(*dimension)}).value_or(Size{1, {{node->output(), place}}});
      if (size.number <= 0) size = {1, {{node->output(), place}}};
    }
    Sizes sizes = before;
    sizes.erase(sizes.begin() + *dimension);
    sizes.insert(sizes.begin() + *dimension, parts->begin(), parts->end());
    return sizes;
  }

 private:
  std::optional<Sizes> listed(const jit::Value* list) {
    Sizes sizes;
    if (const auto numbers = constant_ints(list)) {
      for (const int64_t number : *numbers) sizes.push_back({number});
      return sizes;
    }
    const jit::Node* node = maker_of_list(list);
    if (node == nullptr) return std::nullopt;
    if (node->kind() == jit::aten::size || node->kind() == jit::aten::slice) return sizes_of_another(node);
    if (node->kind() == jit::aten::add) {
      auto first = listed(node->input(0));
      const auto second = listed(node->input(1));
      if (first && second) first->insert(first->end(), second->begin(), second->end());
      return second ? first : std::nullopt;
    }
    if (node->kind() != jit::prim::ListConstruct) return std::nullopt;
    for (const jit::Value* element : node->inputs()) sizes.push_back(of_number(element));
    return sizes;
  }

  // Those of x.shape or x.shape[:2].
  std::optional<Sizes> sizes_of_another(const jit::Node* list) {
    const bool part = list->kind() == jit::aten::slice;
    const jit::Value* whole = tensor_of_sizes(part ? list->input(0) : list->output());
    const auto rank = whole == nullptr ? std::nullopt : known_.ranks.of(whole);
    if (!rank) return std::nullopt;
    const Sizes all = of_value(whole, *rank);
    if (!part) return all;
    const auto bounds = slice_bounds(list);
    if (!bounds || constant_int(list->namedInput("step")) != 1) return std::nullopt;
    const auto [first, last] = sliced_places(bounds->first, bounds->second, *rank);
    return Sizes(all.begin() + first, all.begin() + last);
  }

  static std::optional<Size> rest_of(const Sizes& sizes, size_t open, const std::optional<Sizes>& whole) {
    if (!whole) return std::nullopt;
    const auto place = sizes.begin() + static_cast<int64_t>(open);
    return product(*whole) / (product(sizes.begin(), place) * product(place + 1, sizes.end()));
  }

  // The size of `value` along `dimension`, where it comes from.
  Size of(const jit::Value* value, int64_t dimension) {
    while (--steps_ > 0) {
      const auto number = known_.extents.of(value, dimension);
      if (number && *number > 0) return {*number};
      const jit::Node* node = value->node();
      if (is_one_of(node, {"view", "reshape"})) {
        const auto rank = known_.ranks.of(node->input(0));
        const auto sizes = of_view(node, rank ? std::optional<Sizes>(of_value(node->input(0), *rank)) : std::nullopt);
        return sizes && dimension < static_cast<int64_t>(sizes->size()) ? sizes->at(dimension) : Size{1, {{value, dimension}}};
      }
      if (is_one_of(node, {"flatten"})) return of_flattened(node, dimension);
      if (is_one_of(node, {"unflatten"})) {
        const auto rank = known_.ranks.of(node->input(0));
        const auto sizes = rank ? of_unflatten(node, of_value(node->input(0), *rank)) : std::nullopt;
        return sizes && dimension < static_cast<int64_t>(sizes->size()) ? sizes->at(dimension) : Size{1, {{value, dimension}}};
      }
      if (is_one_of(node, {"select"})) {
        const auto selected = constant_dimension(node->input(1), known_.ranks.of(node->input(0)));
        if (!selected) break;
        dimension += dimension >= *selected ? 1 : 0;
      } else if (is_one_of(node, {"permute", "transpose", "t"})) {
        const auto before = dimension_before(node, dimension, known_.ranks.of(value));
        if (!before) break;
        dimension = *before;
      } else if (!keeps(node, value, dimension)) {
        break;
      }
      value = node->input(0);
    }
    return {1, {{value, dimension}}};
  }

  bool keeps(const jit::Node* node, const jit::Value* value, int64_t dimension) const {
    if (keeps_sizes(node)) return true;
    if (node->kind() == jit::aten::linear) return known_.ranks.of(value).value_or(0) > dimension + 1;
    const auto batched = batched_rank(node);
    return dimension == 0 && (keeps_channels(node) || (batched && known_.ranks.of(value) == batched));
  }

  Size of_flattened(const jit::Node* node, int64_t dimension) {
    const jit::Value* before = node->input(0);
    const auto rank = known_.ranks.of(before);
    const auto first = constant_dimension(node->namedInput("start_dim"), rank);
    const auto last = constant_dimension(node->namedInput("end_dim"), rank);
    if (!first || !last || *first > *last) return {1, {{node->output(), dimension}}};
    if (dimension != *first) return of(before, dimension < *first ? dimension : dimension + *last - *first);
    Size merged;
    for (int64_t part = *first; part <= *last; ++part) merged = merged * of(before, part);
    return merged;
  }

  // One element of the list of sizes that view is given.
  Size of_number(const jit::Value* element) {
    if (const auto number = constant_int(element)) return {*number};
    const jit::Node* node = element->node();
    if (node->kind() == jit::aten::floordiv || node->kind() == jit::aten::div) {
      const auto quotient = of_number(node->input(0)) / of_number(node->input(1));
      if (quotient && quotient->is_known()) return *quotient;
    } else if (node->kind().toQualString() == std::string_view("aten::numel")) {
      if (const auto rank = known_.ranks.of(node->input())) return product(of_value(node->input(), *rank));
    } else if (node->kind() == jit::aten::mul) {
      return of_number(node->input(0)) * of_number(node->input(1));
    } else if (node->kind() == jit::aten::Int || node->kind().toQualString() == std::string_view("prim::NumToTensor")) {
      return of_number(node->input(0));
    }
    const auto read = size_read(element);
    const auto place = read ? from_front(read->dimension, known_.ranks.of(read->tensor)) : std::nullopt;
    return place ? of(read->tensor, *place) : Size{1, {{element, kNumber}}};
  }

  const Knowledge& known_;
  int steps_ = 4096;  // since a size may be reached on many ways
};

// The dimensions of the affine from the first along which it varies to the last one; none where it is constant.
struct Range {
  int64_t first = 0;
  int64_t end = 0;
};

Range varying_dimensions(const algebra::Affine& affine) {
  Range range;
  for (int64_t dimension = 0; dimension < affine.rank(); ++dimension) {
    if (affine.size_along(dimension) == 1) continue;
    if (range.end == 0) range.first = dimension;
    range.end = dimension + 1;
  }
  return range;
}

// Matches dimensions of two views of the same elements.
class Matching {
 public:
  Matching(const algebra::Affine& affine, Sizes from, Sizes to)
      : affine_(affine), from_(std::move(from)), to_(std::move(to)), varying_(varying_dimensions(affine)) {
    for (int64_t d = varying_.first; d < varying_.end; ++d) {
      if (affine.size_along(d) != 1) from_.at(d) = {affine.size_along(d)};
    }
  }

  // The affine, which belongs to the view of sizes `from`, for that of sizes `to`.
  std::optional<algebra::Affine> matched() {
    const auto rank = static_cast<int64_t>(to_.size());
    if (varying_.end == 0) return algebra::broadcast_to_rank({affine_.scale.flatten(), affine_.shift.flatten()}, rank);
    for (int64_t first = varying_.first; first >= 0; --first) {
      for (int64_t other = 0; other < rank; ++other) {
        if (!begin_together(first, other)) continue;
        if (auto affine = matched_from(first, other)) return affine;
      }
    }
    return std::nullopt;
  }

 private:
  // Whether both describe the same elements from these dimensions on.
  bool begin_together(int64_t first, int64_t other) const {
    return product(from_.begin(), from_.begin() + first) == product(to_.begin(), to_.begin() + other) ||
           product(from_.begin() + first, from_.end()) == product(to_.begin() + other, to_.end());
  }

  std::optional<algebra::Affine> matched_from(int64_t first, int64_t other) {
    Sizes from(from_.begin() + first, from_.end());
    Sizes to(to_.begin() + other, to_.end());
    if (!fill_rest(from, to) && !fill_rest(to, from)) fill_block(from, varying_.first - first, varying_.end - first, to);
    const int64_t needed = varying_.end - first;
    int64_t i = 0;
    int64_t j = 0;
    int64_t taken = 1;
    int64_t covered = 1;
    const auto count = [](const Sizes& sizes) { return static_cast<int64_t>(sizes.size()); };
    while (i < needed || taken != covered) {
      const bool behind = i < needed ? taken <= covered : taken < covered;
      Sizes& sizes = behind ? from : to;
      int64_t& place = behind ? i : j;
      if (place == count(sizes) || !sizes[place].is_known() || sizes[place].number > kMost) return std::nullopt;
      (behind ? taken : covered) *= sizes[place++].number;
      if (std::max(taken, covered) > kMost) return std::nullopt;
    }
    std::vector<int64_t> full(affine_.rank(), 1);
    for (int64_t d = 0; d < i; ++d) full[first + d] = from[d].number;
    std::vector<int64_t> shape(to_.size(), 1);
    for (int64_t d = 0; d < j; ++d) shape[other + d] = to[d].number;
    return algebra::Affine{affine_.scale.expand(full).reshape(shape), affine_.shift.expand(full).reshape(shape)};
  }

  // The only unknown size in `sizes`, where the others tell it.
  static bool fill_rest(Sizes& sizes, const Sizes& others) {
    const Size whole = product(others);
    const auto is_unknown = [](const Size& size) { return !size.is_known(); };
    if (!whole.is_known() || std::count_if(sizes.begin(), sizes.end(), is_unknown) != 1) return false;
    const auto open = std::find_if(sizes.begin(), sizes.end(), is_unknown);
    const auto rest = whole / (product(sizes.begin(), open) * product(open + 1, sizes.end()));
    if (!rest || rest->number < 1) return false;
    *open = *rest;
    return true;
  }

  // The dimensions on one side of the channels, along which the affine is constant, may be any whose product is right.
  static void fill_block(Sizes& from, int64_t first, int64_t end, const Sizes& to) {
    const Size whole = product(to);
    const Size head = product(from.begin(), from.begin() + first);
    const Size tail = product(from.begin() + end, from.end());
    if (!whole.is_known() || head.is_known() == tail.is_known()) return;
    const auto channels = product(from.begin() + first, from.begin() + end);
    const auto rest = whole / (channels * (head.is_known() ? head : tail));
    if (!rest || !rest->is_known() || rest->number < 1) return;
    const auto begin = head.is_known() ? from.begin() + end : from.begin();
    const auto behind = head.is_known() ? from.end() : from.begin() + first;
    std::fill(begin, behind, Size{1});
    *begin = *rest;
  }

  static constexpr int64_t kMost = int64_t{1} << 24;  // elements of an affine

  const algebra::Affine& affine_;
  Sizes from_;
  Sizes to_;
  const Range varying_;
};

Decline not_matched(const Site& site) {
  return {Reason::sizes_unknown, site.node, "its sizes can't be matched with the norm's channels"};
}

bool is_unflatten(const jit::Node* node) {
  return node->kind() == jit::aten::unflatten;
}

// The rank of the input, where that of the output tells it.
std::optional<int64_t> rank_before(const Site& site) {
  if (!is_unflatten(site.node)) return site.known.ranks.of(site.node->input(0));
  const jit::Value* list = site.node->namedInput("sizes");
  const auto numbers = constant_ints(list);
  const auto items = items_of_list(list);
  if (!numbers && !items) return std::nullopt;
  return site.affine.rank() + 1 - static_cast<int64_t>(numbers ? numbers->size() : items->size());
}

// A linear layer with as many outputs as the view takes for what begins with the channels may be called on a value of any rank.
Answer into_linear(const Site& site, const Sizes& after) {
  jit::Value* made = site.node->input(0);
  const auto outputs = made->node()->kind() == jit::aten::linear ? site.known.extents.last_of_linear(made->node()) : std::nullopt;
  if (!outputs) return not_matched(site);
  const Size rows{1, {{made, kRows}}};
  const auto affine = Matching(site.affine, after, {rows, Size{*outputs}}).matched();
  if (!affine || affine->size_along(0) != 1 || affine->size_along(1) != *outputs) return not_matched(site);
  return to_input(site, algebra::without_dimension(*affine, 0));
}

}  // namespace

Answer reshape_forward(const Site& site) {
  if (site.place != 0) return Decline{Reason::operand_not_constant, site.node, "the normalized value tells its sizes"};
  SizeReader reader(site.known);
  const Sizes before = reader.of_value(site.node->input(0), site.affine.rank());
  const auto after = is_unflatten(site.node) ? reader.of_unflatten(site.node, before) : reader.of_view(site.node, before);
  auto affine = after ? Matching(site.affine, before, *after).matched() : std::nullopt;
  if (after && !affine) affine = Matching(site.affine, before, reader.as_read(site.node, *after)).matched();
  if (!affine) return not_matched(site);
  return to_output(site, *affine);
}

Answer reshape_backward(const Site& site) {
  SizeReader reader(site.known);
  const auto rank = rank_before(site);
  if (rank && *rank < 1) return not_matched(site);
  const auto before = rank ? std::optional<Sizes>(reader.of_value(site.node->input(0), *rank)) : std::nullopt;
  const auto after =
      is_unflatten(site.node) && before ? reader.of_unflatten(site.node, *before) : reader.of_view(site.node, before);
  if (!after || static_cast<int64_t>(after->size()) != site.affine.rank()) return not_matched(site);
  if (!before) return into_linear(site, *after);
  const auto affine = Matching(site.affine, *after, *before).matched();
  if (!affine) return not_matched(site);
  return to_input(site, *affine);
}

}  // namespace bnfold
