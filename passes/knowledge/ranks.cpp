#include "knowledge/ranks.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/raise_if.h"
#include "knowledge/deciding_rank.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

using Member = RankClasses::Member;

// What a trace saw.
std::optional<int64_t> rank_of_type(const jit::Value* value) {
  const auto tensor = value->type()->cast<c10::TensorType>();
  if (!tensor || !tensor->dim()) return std::nullopt;
  return static_cast<int64_t>(*tensor->dim());
}

std::optional<int64_t> length(const jit::Value* list) {
  if (const auto constant = jit::toIValue(list)) {
    if (constant->isIntList()) return static_cast<int64_t>(constant->toIntVector().size());
    return std::nullopt;
  }
  const auto items = items_of_list(list);
  return items ? std::optional<int64_t>(items->size()) : std::nullopt;
}

// One number, or a list of them; none where they are computed.
std::vector<int64_t> numbers(const jit::Value* value) {
  if (const auto one = constant_int(value)) return {*one};
  return constant_ints(value).value_or(std::vector<int64_t>());
}

}  // namespace

// Reads what the nodes of a graph tell, each in the runs that reach its block.
class RankReader {
 public:
  RankReader(Ranks& ranks, const Ranks::StaticRank& static_rank, bool types_tell, bool checks_prove)
      : classes_(ranks.classes_), static_rank_(static_rank), types_tell_(types_tell), checks_prove_(checks_prove) {}

  void read(const jit::Node* node) {
    node_ = node;
    if (types_tell_) {
      for (const jit::Value* output : node->outputs()) {
        if (const auto rank = rank_of_type(output)) classes_.learn(member(output), *rank, Strength::hinted);
      }
    }
    if (node->kind() == jit::prim::GetAttr && is_tensor(node->output())) prove(output(), static_rank_(node->output()));
    if (node->kind() == jit::prim::If) {
      read_check();
      read_results();
    }
    if (node->kind() == jit::prim::ListUnpack || node->kind() == jit::aten::__getitem__) read_pieces();
    read(operator_of(node).shape);
  }

 private:
  Member member(const jit::Value* value) { return classes_.member(value, node_->owningBlock()); }
  Member input(size_t place = 0) { return member(node_->input(place)); }
  Member output() { return member(node_->output(0)); }

  void prove(Member member, std::optional<int64_t> rank) {
    if (rank) classes_.narrow(member, *rank, *rank);
  }

  void keep() { classes_.tie(input(), output()); }

  void read(Shape shape) {
    switch (shape) {
      case Shape::transposed:
      case Shape::cut:
        keep();
        return read_dimensions();
      case Shape::same:
      case Shape::padded:
      case Shape::shuffled:
      case Shape::unshuffled:
      case Shape::resized:
        return keep();
      case Shape::convolution:
        keep();
        return allow_no_batch(batched_rank(node_).value());
      case Shape::batched_convolution:
        return read_batched();
      case Shape::channels:
      case Shape::adapted:
      case Shape::bordered:
        keep();
        return allow_no_batch(spatial_dimensions(node_) + 2);
      case Shape::interpolated:
        keep();
        return prove(output(), spatial_dimensions(node_) + 2);
      case Shape::normalized:
        keep();
        return classes_.narrow(output(), 2, RankFacts().most);
      case Shape::matrix:
        return read_matrices(2);
      case Shape::matrices:
        return read_matrices(3);
      case Shape::linear:
      case Shape::product:
        return read_layer();
      case Shape::broadcast:
        return read_broadcast();
      case Shape::given:
        return prove(output(), length(node_->input(0)));
      case Shape::listed:
        return read_listed();
      case Shape::expanded:
      case Shape::repeated:
        return prove(output(), length(node_->input(1)));
      case Shape::permuted:
        keep();
        return prove(output(), length(node_->input(1)));
      case Shape::flattened:
        return read_flattened();
      case Shape::like:
        return classes_.tie(input(1), output());
      case Shape::gathered:
        return classes_.tie(input(2), output());
      case Shape::sequences:
        keep();
        return prove(input(), 3);
      case Shape::unsqueezed:
      case Shape::windowed:
        return classes_.tie(input(), output(), 1);
      case Shape::embedded:
        return classes_.tie(input(1), output(), 1);
      case Shape::selected:
        read_dimensions();
        return classes_.tie(input(), output(), -1);
      case Shape::diagonal:
        return classes_.tie(input(), output(), -1);
      case Shape::divided:
        return read_divided();
      case Shape::tiled:
        return read_tiled();
      case Shape::equation:
        return read_equation();
      case Shape::concatenation:
        return read_joined();
      case Shape::reduced:
        return read_reduced();
      case Shape::stacked:
        return read_stacked();
      case Shape::attention:
        return read_attention();
      case Shape::squeezed:
        return read_squeezed();
      case Shape::pieces:  // read where the list is taken apart
      case Shape::unbound:
      case Shape::unknown:
        return;
    }
  }

  // x[:, :, 1] and x.transpose(1, 2) raise an error for a value without these dimensions.
  void read_dimensions() {
    for (const char* name : {"dim", "dim0", "dim1"}) {
      const auto dimension = has_argument(node_, name) ? constant_int(node_->namedInput(name)) : std::nullopt;
      const int64_t least = dimension ? (*dimension < 0 ? -*dimension : *dimension + 1) : 0;
      if (least > 1) classes_.narrow(input(), least, RankFacts().most);  // a number has dimension 0 as well
    }
  }

  void allow_no_batch(int64_t rank) {
    classes_.narrow(output(), rank - 1, rank);
    classes_.learn(output(), rank, Strength::assumed);
  }

  // Unlike conv2d, these raise an error for a value without a batch.
  void read_batched() {
    keep();
    const auto weight = static_rank_(node_->namedInput("weight"));
    const auto rank = weight ? weight : batched_rank(node_);
    if (!rank) return;
    // One number as stride may stand for all dimensions.
    if (weight || *rank > 3) return prove(output(), rank);
    classes_.learn(output(), *rank, Strength::assumed);
  }

  // The factors of mm and bmm, behind what addmm adds.
  void read_matrices(int64_t rank) {
    const size_t first = node_->inputs().size() == 2 ? 0 : 1;
    prove(input(first), rank);
    prove(input(first + 1), rank);
    prove(output(), rank);
  }

  void read_layer() {
    if (static_rank_(node_->input(1)) != 2) return read_product();
    classes_.narrow(input(), 1, RankFacts().most);
    keep();
  }

  void read_product() {
    if (node_->kind() != jit::aten::matmul) return;
    for (const size_t place : {size_t{0}, size_t{1}}) prove(input(place), static_rank_(node_->input(place)));
    classes_.relate(RankClasses::Product{input(0), input(1), output()});
  }

  void read_stacked() {
    const auto parts = items_of_list(node_->input(0));
    if (!parts) return;
    for (const jit::Value* part : *parts) classes_.tie(member(part), output(), 1);
  }

  // A mask may have more dimensions.
  void read_attention() {
    if (!is_left_out(node_, "attn_mask")) return;
    classes_.relate(RankClasses::Largest{{{input(0)}, {input(1)}, {input(2)}}, output(), 2});
  }

  // Whether dimension `dimension` of `value`, counted from its end where it is negative, surely has one element: a reduction or adaptive pooling
  // left it, and others may have been dropped since.
  static bool has_one(const jit::Value* value, int64_t dimension) {
    const jit::Node* node = value->node();
    switch (operator_of(node).shape) {
      case Shape::same:
        return has_one(node->input(0), dimension);
      case Shape::reduced: {
        if (!has_argument(node, "dim") || !has_argument(node, "keepdim")) return false;
        const auto dimensions = numbers(node->namedInput("dim"));
        const bool reduced = std::find(dimensions.begin(), dimensions.end(), dimension) != dimensions.end();
        return reduced && constant_bool(node->namedInput("keepdim")) == true;
      }
      case Shape::adapted: {
        const auto sizes = numbers(node->input(1));
        if (sizes.empty()) return false;
        const int64_t place = dimension + static_cast<int64_t>(sizes.size());
        if (dimension < 0) return place >= 0 && sizes[place] == 1;
        // The pooled dimensions begin behind the channels, and behind a batch if there is one.
        return dimension >= 2 && std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size == 1; });
      }
      case Shape::squeezed: {
        const auto dropped = has_argument(node, "dim") ? constant_int(node->input(1)) : std::nullopt;
        if (!dropped || (*dropped < 0) != (dimension < 0) || !has_one(node->input(0), *dropped)) return false;
        if (dimension < 0) return has_one(node->input(0), dimension > *dropped ? dimension : dimension - 1);
        return has_one(node->input(0), dimension < *dropped ? dimension : dimension + 1);
      }
      default:
        return false;
    }
  }

  // How many dimensions surely have one element, as a reduction or adaptive pooling left them.
  static int64_t count_of_one(const jit::Value* value) {
    const jit::Node* node = value->node();
    switch (operator_of(node).shape) {
      case Shape::same:
        return count_of_one(node->input(0));
      case Shape::reduced: {
        const bool stay =
            has_argument(node, "dim") && has_argument(node, "keepdim") && constant_bool(node->namedInput("keepdim")) == true;
        return stay ? static_cast<int64_t>(numbers(node->namedInput("dim")).size()) : 0;
      }
      case Shape::adapted: {
        const auto sizes = numbers(node->input(1));
        return std::count(sizes.begin(), sizes.end(), 1);
      }
      default:
        return 0;
    }
  }

  void read_squeezed() {
    if (!has_argument(node_, "dim")) {
      return classes_.relate(RankClasses::Bounded{input(), -count_of_one(node_->input(0)), output()});
    }
    const std::vector<int64_t> dimensions = numbers(node_->namedInput("dim"));
    const bool drops = !dimensions.empty() && std::all_of(dimensions.begin(), dimensions.end(), [this](int64_t dimension) {
      return has_one(node_->input(0), dimension);
    });
    // A number has no dimension to drop, and is reduced to one that keeps none.
    if (drops) classes_.relate(RankClasses::Largest{{{input(), -static_cast<int64_t>(dimensions.size())}}, output()});
  }

  // "bij,ij->bj" makes two dimensions.
  void read_equation() {
    const auto equation = constant_string(node_->input(0));
    const size_t arrow = equation ? equation->find("->") : std::string::npos;
    if (arrow == std::string::npos || equation->find("...") != std::string::npos) return;
    const auto is_letter = [](char one) { return one != ' '; };
    prove(output(), std::count_if(equation->begin() + static_cast<std::ptrdiff_t>(arrow) + 2, equation->end(), is_letter));
  }

  void read_tiled() {
    if (const auto times = length(node_->input(1))) classes_.relate(RankClasses::Largest{{{input()}}, output(), *times});
  }

  void read_broadcast() {
    RankClasses::Largest largest{{}, output()};
    for (const jit::Value* operand : node_->inputs()) {
      if (!may_be_tensor(operand)) continue;
      if (const auto rank = static_rank_(operand)) {
        largest.floor = std::max(largest.floor, *rank);
      } else if (!is_tensor(operand)) {
        return;
      } else {
        largest.sources.push_back({member(operand)});
      }
    }
    classes_.relate(std::move(largest));
  }

  void read_flattened() {
    const auto first = constant_int(node_->input(1));
    const auto last = constant_int(node_->input(2));
    if (!first || !last) return;
    // All but `first` dimensions in front and those behind `last` become one.
    if (*first >= 0 && *last < 0) return prove(output(), *first - *last);
    const bool from_one_end = (*first < 0) == (*last < 0);
    if (from_one_end && *last > *first) classes_.tie(input(), output(), *first - *last);
  }

  // The sizes that view and reshape are given, maybe those of another value, as x.shape[:2]: a slice of a shorter list is shorter.
  void read_listed() {
    const jit::Node* list = maker_of_list(node_->input(1));
    const bool part = list != nullptr && list->kind() == jit::aten::slice;
    const jit::Value* whole = tensor_of_sizes(part ? list->input(0) : node_->input(1));
    if (whole == nullptr) return prove(output(), length(node_->input(1)));
    if (!part) return classes_.tie(member(whole), output());
    const auto end = is_left_out(list, "end") ? std::nullopt : constant_int(list->namedInput("end"));
    if (end && *end > 0) classes_.narrow(output(), 0, *end);
  }

  void read_divided() {
    if (const auto parts = length(node_->namedInput("sizes"))) classes_.tie(input(), output(), *parts - 1);
  }

  // A vector without elements joins values of any rank.
  void read_joined() {
    const auto parts = items_of_list(node_->input(0));
    if (!parts) return;
    RankClasses::Largest largest{{}, output(), 1, /*alike=*/true};
    for (const jit::Value* part : *parts) largest.sources.push_back({member(part)});
    classes_.relate(std::move(largest));
  }

  void read_reduced() {
    if (!has_argument(node_, "dim")) return prove(output(), 0);
    if (!has_argument(node_, "keepdim")) return;
    const auto keeps = constant_bool(node_->namedInput("keepdim"));
    if (!keeps) return;
    if (*keeps) return keep();
    const bool one = constant_int(node_->namedInput("dim")).has_value();
    const auto dimensions = one ? std::optional<int64_t>(1) : length(node_->namedInput("dim"));
    if (is_left_out(node_, "dim") || dimensions == 0) return prove(output(), 0);
    if (dimensions == 1) return classes_.relate(RankClasses::Largest{{{input(), -1}}, output()});  // a number can be reduced too
    if (dimensions) classes_.tie(input(), output(), -*dimensions);
  }

  void read_pieces() {
    const jit::Node* cut = maker_of_list(node_->input(0));
    const Shape shape = cut == nullptr ? Shape::unknown : operator_of(cut).shape;
    if (shape != Shape::pieces && shape != Shape::unbound) return;
    const int64_t difference = shape == Shape::unbound ? -1 : 0;
    for (const jit::Value* piece : node_->outputs()) classes_.tie(member(cut->input(0)), member(piece), difference);
  }

  // The results of a condition, which a rank may decide. One that a branch leaves uninitialized is read in no run that takes this branch.
  void read_results() {
    std::optional<RankClasses::Chosen::Decider> decider;
    if (const auto deciding = deciding_rank(node_)) decider = {member(deciding->value), deciding->rank, deciding->takes_first};
    for (size_t place = 0; place < node_->outputs().size(); ++place) {
      if (!is_tensor(node_->output(place))) continue;
      std::vector<Member> results;
      for (const jit::Block* branch : node_->blocks()) {
        const jit::Value* result = branch->outputs()[place];
        if (result->node()->kind() != jit::prim::Uninitialized) results.push_back(classes_.member(result, branch));
      }
      if (results.empty()) continue;
      classes_.relate(RankClasses::Chosen{results.front(), results.back(), member(node_->output(place)), decider});
    }
  }

  // if dim(x) == rank: squeeze(f(unsqueeze(x, 0)), 0) else: f(x), where f usually gets a batch.
  void read_missing_batch(const jit::Node* condition) {
    const auto nodes = const_cast<jit::Block*>(node_->blocks().at(0))->nodes();
    const jit::Node* dimension = condition->input(0)->node();
    const auto rank = constant_int(condition->input(1));
    const bool adds_batch = std::any_of(nodes.begin(), nodes.end(), [dimension](const jit::Node* node) {
      return node->kind() == jit::aten::unsqueeze && node->input(0) == dimension->input() && constant_int(node->input(1)) == 0;
    });
    if (rank && adds_batch) classes_.learn(member(dimension->input()), *rank + 1, Strength::assumed);
  }

  // if dim(x) != 2 and dim(x) != 3: raise, as BatchNorm1d asks.
  void read_two_ranks(const jit::Node* condition) {
    if (condition->kind() != jit::prim::If || constant_bool(condition->blocks()[1]->outputs()[0]) != false) return;
    const auto excluded = [](const jit::Node* node) -> std::optional<std::pair<const jit::Value*, int64_t>> {
      if (node->kind() != jit::aten::ne || node->input(0)->node()->kind() != jit::aten::dim) return std::nullopt;
      const auto rank = constant_int(node->input(1));
      return rank ? std::optional(std::pair(node->input(0)->node()->input(), *rank)) : std::nullopt;
    };
    const auto first = excluded(condition->input()->node());
    const auto second = excluded(condition->blocks()[0]->outputs()[0]->node());
    if (!first || !second || first->first != second->first) return;
    classes_.narrow(member(first->first), std::min(first->second, second->second), std::max(first->second, second->second));
  }

  // if dim(x) not in [1, 2]: raise, as GRUCell asks.
  void read_listed_ranks(const jit::Node* condition) {
    const bool is_negated = condition->kind() == jit::aten::__not__;
    if (is_negated) condition = condition->input()->node();
    if (condition->kind() != jit::aten::__contains__ || !raises(node_->blocks().at(is_negated ? 0 : 1))) return;
    const auto listed = constant_ints(condition->input(0));
    const jit::Node* dimension = condition->input(1)->node();
    if (dimension->kind() != jit::aten::dim || !listed || listed->empty()) return;
    const auto [least, most] = std::minmax_element(listed->begin(), listed->end());
    classes_.narrow(member(dimension->input()), *least, *most);
  }

  // if dim(x) != rank: raise, or assert dim(x) == rank.
  void read_check() {
    const jit::Node* condition = node_->input()->node();
    if (condition->kind() == jit::aten::eq && condition->input(0)->node()->kind() == jit::aten::dim)
      read_missing_batch(condition);
    if (!checks_prove_) return;
    if (raises(node_->blocks().at(0))) read_two_ranks(condition);
    read_listed_ranks(condition);
    const bool demands_rank = (condition->kind() == jit::aten::ne && raises(node_->blocks().at(0))) ||
                              (condition->kind() == jit::aten::eq && raises(node_->blocks().at(1)));
    if (!demands_rank) return;
    const jit::Node* dimension = condition->input(0)->node();
    if (dimension->kind() == jit::aten::dim) prove(member(dimension->input()), constant_int(condition->input(1)));
  }

  RankClasses& classes_;
  const Ranks::StaticRank& static_rank_;
  const bool types_tell_;  // the types in the graph are those of a trace on inputs of the hinted ranks
  const bool checks_prove_;
  const jit::Node* node_ = nullptr;
};

std::optional<int64_t> batched_rank(const jit::Node* convolution) {
  static const std::unordered_map<std::string, int64_t> ranks = {
      {"conv1d", 3}, {"conv2d", 4}, {"conv3d", 5}, {"conv_transpose1d", 3}, {"conv_transpose2d", 4}, {"conv_transpose3d", 5}};
  if (!is_convolution(convolution)) return std::nullopt;
  const auto found = ranks.find(convolution->kind().toUnqualString());
  if (found != ranks.end()) return found->second;
  // These tell their rank by the length of stride, one entry a spatial dimension.
  const auto dimensions = has_argument(convolution, "stride") ? length(convolution->namedInput("stride")) : std::nullopt;
  return dimensions ? std::optional<int64_t>(*dimensions + 2) : std::nullopt;
}

Ranks::Ranks(const jit::Graph& graph, const std::vector<std::optional<int64_t>>& hints, const StaticRank& static_rank,
             bool checks_prove, bool types_prove)
    : hints_(hints), change_in_place_(changes_dimensions_in_place(graph)), types_prove_(types_prove) {
  if (change_in_place_) return;
  if (types_prove) read_types(graph);
  const auto& inputs = graph.inputs();
  bool hinted = false;
  for (size_t i = 0; i < hints.size() && i + 1 < inputs.size(); ++i) {
    if (!hints[i]) continue;
    classes_.learn(classes_.member(inputs[i + 1], graph.block()), *hints[i], Strength::hinted);
    hinted = true;
  }
  const auto is_as_traced = [&](const jit::Value* input) {
    const auto traced = rank_of_type(input);
    return !traced || traced == classes_.facts(input, graph.block()).hinted;
  };
  const bool types_tell = hinted && std::all_of(inputs.begin(), inputs.end(), is_as_traced);
  RankReader reader(*this, static_rank, types_tell, checks_prove);
  for_each_node(graph.block(), [&reader](const jit::Node* node) { reader.read(node); });
  classes_.settle();
}

void Ranks::read_types(const jit::Graph& graph) {
  const auto read = [&](const jit::Value* value) {
    if (const auto rank = rank_of_type(value))
      classes_.narrow(classes_.member(value, value->node()->owningBlock()), *rank, *rank);
  };
  for (const jit::Value* input : graph.inputs()) read(input);
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&read](const jit::Node* node) {
    for (const jit::Value* output : node->outputs()) read(output);
  });
}

std::optional<Rank> Ranks::of(const jit::Value* value, const jit::Block* block) const {
  return classes_.facts(value, block).rank();
}

bool Ranks::is_at_most(const jit::Value* value, const jit::Block* block, int64_t most) const {
  return classes_.facts(value, block).most <= most;
}

bool Ranks::is_unbatched(const jit::Value* value) const {
  const RankFacts facts = classes_.facts(value, value->node()->owningBlock());
  const auto rank = facts.rank();
  return rank && facts.assumed && rank->number < *facts.assumed;
}

bool Ranks::has_hints() const {
  return std::any_of(hints_.begin(), hints_.end(), [](const std::optional<int64_t>& hint) { return hint.has_value(); });
}

void Ranks::prove(const jit::Value* value, const jit::Block* block, int64_t rank) {
  classes_.learn(classes_.member(value, block), rank, Strength::proven);
  classes_.settle();
}

}  // namespace bnfold
