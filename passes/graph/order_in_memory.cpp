#include "graph/order_in_memory.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <unordered_set>

#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/permutation.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Operators that keep the order take another one as an argument, too.
Order order_made_by(const jit::Node* node) {
  const Order order = operator_of(node).order;
  if (order != Order::kept || !has_argument(node, "memory_format")) return order;
  const jit::Value* format = node->namedInput("memory_format");
  const bool keeps = format->mustBeNone() || constant_int(format) == static_cast<int64_t>(at::MemoryFormat::Preserve);
  return keeps ? Order::kept : Order::stated;
}

// Of one value, in its order and of its sizes.
bool is_elementwise(const jit::Node* node) {
  return order_made_by(node) == Order::kept && operator_of(node).shape == Shape::same;
}

bool permutes(const jit::Node* node) {
  const Shape shape = operator_of(node).shape;
  return shape == Shape::permuted || shape == Shape::transposed;
}

// The order of a value of which `inner` tells the order, permuted by `outer`.
DimensionOrder composed(const DimensionOrder& inner, DimensionOrder outer) {
  if (outer.empty()) return inner;
  for (int64_t& dimension : outer) dimension = inner.at(dimension);
  return std::is_sorted(outer.begin(), outer.end()) ? DimensionOrder() : outer;
}

bool is_piece_of_list(const jit::Node* node) {
  const bool takes = node->kind() == jit::prim::ListUnpack || node->kind() == jit::aten::__getitem__;
  return takes && operator_of(node->input(0)->node()).shape == Shape::pieces;
}

// The operands of which elementwise operators take the order. One that is static is broadcast in all but odd cases, and its order is that of the memory formats.
std::vector<const jit::Value*> operands_of(const jit::Node* node) {
  std::vector<const jit::Value*> operands;
  for (const jit::Value* operand : node->inputs()) {
    const jit::NodeKind kind = operand->node()->kind();
    if (may_be_tensor(operand) && kind != jit::prim::Constant && kind != jit::prim::GetAttr) operands.push_back(operand);
  }
  return operands;
}

// The values whose order `node` takes for that of its output; none where it lays out anew, or nothing is known.
std::vector<const jit::Value*> followed_by(const jit::Value* value) {
  const jit::Node* node = value->node();
  const Operator& known = operator_of(node);
  if (node->kind() == jit::prim::If) {
    return {node->blocks()[0]->outputs()[value->offset()], node->blocks()[1]->outputs()[value->offset()]};
  }
  if (is_piece_of_list(node)) return {node->input(0)->node()->input(0)};
  const bool drops_dimension = known.shape == Shape::selected || known.shape == Shape::unbound;
  if (order_made_by(node) != Order::kept || drops_dimension || node->inputs().empty()) return {};
  return known.shape == Shape::broadcast ? operands_of(node) : std::vector<const jit::Value*>{node->input(0)};
}

// Whether the operator only hands on the order of what it reads, so that it is dense where that is.
bool keeps_density(const jit::Node* node) {
  const Operator& known = operator_of(node);
  if (node->kind() == jit::prim::If) return true;
  if (order_made_by(node) != Order::kept || (known.shape != Shape::same && known.shape != Shape::broadcast)) return false;
  return std::all_of(node->inputs().begin(), node->inputs().end(), [](const jit::Value* operand) {
    const auto number = constant_tensor(operand);  // that a trace made a tensor of
    const bool is_static = operand->node()->kind() == jit::prim::GetAttr || (number && number->dim() != 0);
    return !may_be_tensor(operand) || !is_static;
  });
}

bool lays_out(const jit::Node* node) {
  const Order order = order_made_by(node);
  return order == Order::contiguous || order == Order::followed || order == Order::stated;
}

// The rank that is known, or that the dimensions of permute tell.
std::optional<int64_t> rank_of_permutation(const jit::Node* node, std::optional<int64_t> known) {
  if (known || node->kind() != jit::aten::permute) return known;
  const auto dimensions = constant_ints(node->input(1));
  return dimensions ? std::optional<int64_t>(dimensions->size()) : std::nullopt;
}

// Goes up from a value to those that something lays out, and notes how they are permuted on the way down.
class OrderReader {
 public:
  explicit OrderReader(std::optional<int64_t> rank) : rank_(rank) {}

  std::optional<OrderInMemory> read(const jit::Value* value) {
    pending_ = {{value, {}, /*is_seen_otherwise=*/false}};
    while (!pending_.empty()) {
      const Part part = pending_.back();
      pending_.pop_back();
      if (seen_.insert(part).second && !go_up(part)) return std::nullopt;
    }
    return OrderInMemory{found_.value_or(DimensionOrder()), proven_};
  }

 private:
  // A value, how the one that was asked for is a permuted view of it, and whether that has other sizes: then what is permuted may be a view
  // or a copy in whatever order, and nothing above may be.
  struct Part {
    const jit::Value* value;
    DimensionOrder order;
    bool is_seen_otherwise;

    bool operator<(const Part& other) const {
      return std::tie(value, order, is_seen_otherwise) < std::tie(other.value, other.order, other.is_seen_otherwise);
    }
  };

  bool go_up(const Part& part) {
    const jit::Node* node = part.value->node();
    if (permutes(node)) return go_through(part);
    const auto sources = followed_by(part.value);
    for (const jit::Value* source : sources) pending_.push_back({source, part.order, part.is_seen_otherwise});
    if (!sources.empty()) {
      proven_ = proven_ && keeps_density(node);
      return true;
    }
    const bool is_laid_out = lays_out(node) || is_contiguous(part.value);
    const bool rearranges = operator_of(node).storage != Storage::unknown && !is_laid_out && !node->inputs().empty();
    if (rearranges) pending_.push_back({node->input(0), {}, /*is_seen_otherwise=*/true});
    proven_ = proven_ && is_laid_out;
    if (part.is_seen_otherwise) return part.order.empty();
    // Three dimensions that are made of an image in channels_last have its channels last.
    if (rearranges && rank_ == 3 && operator_of(node).storage == Storage::view) return false;
    return end_at(part.order);
  }

  bool go_through(const Part& part) {
    const jit::Node* node = part.value->node();
    const auto rank = rank_of_permutation(node, part.is_seen_otherwise ? std::nullopt : rank_);
    const auto permutation = rank ? permutation_of(node, *rank) : std::nullopt;
    if (!permutation || !is_permutation(*permutation, *rank)) return false;
    pending_.push_back({node->input(0), composed(*permutation, part.order), part.is_seen_otherwise});
    return true;
  }

  // Operands that lie in several orders: which of them the sum takes is known to the kernel.
  bool end_at(const DimensionOrder& order) {
    const bool agrees = !found_ || *found_ == order;
    found_ = order;
    return agrees;
  }

  const std::optional<int64_t> rank_;
  std::vector<Part> pending_;
  std::set<Part> seen_;
  std::optional<DimensionOrder> found_;
  bool proven_ = true;
};

// Whether `value` is `source` itself, or what elementwise operators make of it, in its order.
bool is_elementwise_of(const jit::Value* value, const jit::Value* source) {
  while (value != source) {
    if (!is_elementwise(value->node())) return false;
    value = value->node()->input(0);
  }
  return true;
}

// Nothing where the weight is computed, and for volumes, which LibTorch's kernels lay out as they like.
std::optional<bool> has_channels_last_weight(const jit::Node* conv, const ParameterStore& store) {
  const auto weight = store.read(conv->namedInput("weight"));
  if (!weight || !weight->defined() || weight->layout() != at::kStrided || weight->dim() > 4) return std::nullopt;
  return weight->suggest_memory_format() != at::MemoryFormat::Contiguous;
}

// Whether the memory format that is stated is surely one of these.
bool is_format(const jit::Node* node, std::initializer_list<at::MemoryFormat> formats) {
  const auto stated = constant_int(node->namedInput("memory_format"));
  return std::any_of(formats.begin(), formats.end(),
                     [&stated](at::MemoryFormat format) { return stated == static_cast<int64_t>(format); });
}

}  // namespace

std::optional<OrderInMemory> order_in_memory(const jit::Value* value, std::optional<int64_t> rank) {
  return OrderReader(rank).read(value);
}

bool is_contiguous(const jit::Value* value) {
  while (true) {
    const jit::Node* node = value->node();
    const Operator& known = operator_of(node);
    if (known.order == Order::contiguous) return true;
    if (order_made_by(node) == Order::stated) return is_format(node, {at::MemoryFormat::Contiguous});
    const bool regroups = known.shape == Shape::flattened || known.shape == Shape::listed || known.shape == Shape::unsqueezed ||
                          known.shape == Shape::squeezed;
    if (!is_elementwise(node) && !regroups) return false;
    value = node->input(0);
  }
}

bool is_dense(const jit::Value* value) {
  const auto found = order_in_memory(value, std::nullopt);
  return found && found->proven && found->order.empty();
}

bool is_channels_last(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_contiguous()) return false;
  return (tensor.dim() == 4 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast)) ||
         (tensor.dim() == 5 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast3d));
}

bool is_channels_last(const jit::Value* value, const ParameterStore& store) {
  std::vector<const jit::Value*> pending = {value};
  std::unordered_set<const jit::Value*> seen;
  while (!pending.empty()) {
    const jit::Value* one = pending.back();
    pending.pop_back();
    if (!seen.insert(one).second) continue;
    const jit::Node* node = one->node();
    const Operator& known = operator_of(node);
    if (is_convolution(node)) {
      const auto weight_is = has_channels_last_weight(node, store);
      if (!weight_is) return false;
      if (!*weight_is) pending.push_back(node->input(0));
    } else if (order_made_by(node) == Order::stated) {
      if (!is_format(node, {at::MemoryFormat::ChannelsLast, at::MemoryFormat::ChannelsLast3d})) return false;
    } else if (known.shape == Shape::concatenation) {
      const jit::Node* list = node->input(0)->node();
      if (list->kind() != jit::prim::ListConstruct) return false;
      pending.insert(pending.end(), list->inputs().begin(), list->inputs().end());
    } else if (known.order == Order::followed) {
      pending.push_back(node->input(0));
    } else if (known.order == Order::kept && (known.shape == Shape::same || known.shape == Shape::broadcast)) {
      const auto operands = followed_by(one);
      if (operands.empty()) return false;
      pending.insert(pending.end(), operands.begin(), operands.end());
    } else {
      return false;
    }
  }
  return true;
}

bool lies_as_sum(const jit::Value* addend, const jit::Value* input, bool input_is_first, const ParameterStore& store) {
  if (!input_is_first) return is_dense(addend);
  const jit::Node* node = addend->node();
  const bool follows = is_forward_conv(node) && has_channels_last_weight(node, store) == false;
  return (follows && is_elementwise_of(node->input(0), input)) ||
         (is_channels_last(addend, store) && is_channels_last(input, store));
}

bool is_part(const jit::Value* value) {
  const jit::Node* node = value->node();
  while (true) {
    const Shape shape = operator_of(node).shape;
    const bool is_piece = node->kind() == jit::prim::ListUnpack || node->kind() == jit::aten::__getitem__;
    if (shape == Shape::cut || shape == Shape::selected || is_piece) return true;
    if (operator_of(node).storage != Storage::view) return false;
    node = node->input(0)->node();
  }
}

bool is_order_visible(const jit::Value* value) {
  const auto sees = [](const jit::Use& use) {
    const jit::Node* node = use.user->kind() == jit::prim::ListConstruct ? only_concatenation(use.user) : use.user;
    if (node == nullptr) return true;
    const bool copies = node->kind() == jit::aten::contiguous || operator_of(node).storage == Storage::fresh;
    return !copies && !reads_metadata_only(use);
  };
  return std::any_of(value->uses().begin(), value->uses().end(), sees);
}

}  // namespace bnfold
