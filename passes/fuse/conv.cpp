// A convolution, what is added to it and the activation behind become one step of oneDNN.
//
//   before   x --> conv2d(W, b) --> add(u) --> relu --> y          after   x, u --> _convolution_pointwise(W', b) --> y
//            x --> conv2d(W, b) --> silu --> y                             x --> _convolution_pointwise(W', b) --> y
//            x --> pad(0) --> conv2d(W, b) --> y                           x --> _convolution_pointwise(W', b) --> y
//
//            x --> conv_transpose2d(W, b) --> relu --> y                   x --> _convolution_transpose_pointwise(W', b) --> y
//
// W' is W in the order that the kernel reads, a packed weight. The step makes channels_last memory, whatever order its input has.
//
// Conditions  of the convolution, in this order
//             it has two or three spatial dimensions; a transposed one has one
//             group: with more, oneDNN takes ten times as long                    layer_unsupported
//             weight, bias and its numbers are constants                          weight_not_static
//             weight and bias are float tensors on the CPU                        weight_unsupported
//             its input has a batch: nothing else is known of it, and the graph
//             raises where it has none                                            input_not_batched
//             nothing writes into its input, since the step stands further down,
//             nor into what lies in the order of its output, of which a copy may
//             be made in another order                                            value_changed_in_place
//             of padding with zeros in front of the convolution
//             it is the same at both sides of each spatial dimension              operand_unsupported
//             nothing else reads what it makes                                    value_has_other_readers
//             nothing writes into what it pads                                    value_changed_in_place
//             of the sum, then the activation behind the convolution
//             nothing else reads what lies before it                              value_has_other_readers
//             nothing writes into the addend between the sum and the activation,
//             where the step stands                                               value_changed_in_place
//             the convolution is not transposed, the sum counts both addends once,
//             and behind it stands ReLU alone                                     operand_unsupported
//             both addends surely have one size and one dtype                     sizes_unknown
//             of the convolutions that hand on channels_last memory to each other
//             one is faster as a step                                             product_too_small
#include "fuse/conv.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "fuse/conv_islands.h"
#include "fuse/memory_order.h"
#include "fuse/pad.h"
#include "fuse/step.h"
#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

using Decision = std::variant<ConvFusion, UnfusedStep>;

bool is_sum(const jit::Node* node) {
  return is_one_of(node, {"add"}) && node->input(1)->type()->kind() == c10::TypeKind::TensorType;
}

std::string step_of(const jit::Node* node) {
  return node->kind().toUnqualString();
}

class Planner {
 public:
  Planner(const std::shared_ptr<jit::Graph>& graph, const Facts& facts) : graph_(graph), store_(graph), facts_(facts) {}

  ConvPlan run() {
    ConvPlan plan;
    for_each_node(graph_->block(), [&](jit::Node* node) {
      if (!is_convolution(node)) return;
      Decision decision = decide(node);
      if (auto* unfused = std::get_if<UnfusedStep>(&decision)) plan.unfused.push_back(std::move(*unfused));
      if (auto* fusion = std::get_if<ConvFusion>(&decision)) take_what_is_around(plan, std::move(*fusion));
    });
    for (const ConvFusion& slower : take_slower_islands(plan.fusions, facts_)) leave(plan, slower);
    for (Left& left : left_) {
      if (sums_.count(left.node) == 0) plan.unfused.push_back(std::move(left.step));
    }
    for (ConvFusion& fusion : plan.fusions) fusion.overwrites_addend = fusion.sum != nullptr && is_free(fusion);
    return plan;
  }

 private:
  // What stands beside a convolution and can't be taken.
  struct Left {
    const jit::Node* conv;
    const jit::Node* node;
    UnfusedStep step;
  };

  Decision decide(jit::Node* conv) const {
    const auto stays = [&](FusionObstacle obstacle, const std::string& detail) {
      const bool named = has_argument(conv, "weight") && store_.read(conv->namedInput("weight"));
      return UnfusedStep{named ? store_.layer(conv->namedInput("weight")) : step_of(conv), step_of(conv), obstacle, detail};
    };
    if (!is_forward_conv(conv) && !is_transposed_conv(conv)) {
      return stays(FusionObstacle::layer_unsupported, "it may be transposed");
    }
    const auto weight = store_.read(conv->namedInput("weight"));
    const auto bias = store_.read(conv->namedInput("bias"));
    if (!weight || !weight->defined() || !bias) return stays(FusionObstacle::weight_not_static, "its weight or bias is computed");
    if (weight->dim() < 4) return stays(FusionObstacle::layer_unsupported, "oneDNN's step has two or three spatial dimensions");
    for (const at::Tensor& tensor : {*weight, *bias}) {
      if (tensor.defined() && !can_be_packed(tensor)) return stays(FusionObstacle::weight_unsupported, "a " + tensor.toString());
    }
    const auto geometry = conv_geometry(conv, *weight);
    if (!geometry) return stays(FusionObstacle::weight_not_static, "a number is computed, or its padding is uneven");
    if (geometry->transposed() && geometry->groups != 1) {
      return stays(FusionObstacle::layer_unsupported, "it is transposed and has groups");
    }
    const int64_t channels = geometry->transposed() ? weight->size(0) : weight->size(1) * geometry->groups;
    if (facts_.rank_of(conv->input(0)) != weight->dim()) {
      return stays(FusionObstacle::input_not_batched, "its input has no batch dimension, or may have none");
    }
    const std::vector<int64_t> input_size = size_of(conv->input(0), channels, weight->dim());
    if (is_written(conv->input(0)) || is_written_behind(conv->output())) {
      return stays(FusionObstacle::value_changed_in_place, "its input or its output is written into");
    }
    return ConvFusion{conv, store_.layer(conv->namedInput("weight")), *weight, *geometry, input_size};
  }

  bool is_written(const jit::Value* value) const { return store_.memory().may_be_written(value); }

  // Whether something writes into the value, or into what may lie in memory in the order that the step gives it.
  bool is_written_behind(const jit::Value* step) const {
    const auto values = values_in_order_of(step);
    return std::any_of(values.begin(), values.end(), [this](const jit::Value* value) {
      return value->type()->kind() == c10::TypeKind::TensorType && is_written(value);
    });
  }

  // Where nothing tells it, that of a middle-sized image: most kernels read its order.
  std::vector<int64_t> size_of(const jit::Value* input, int64_t channels, int64_t dimensions) const {
    if (const auto* example = facts_.example_of(input)) return *example;
    std::vector<int64_t> size(dimensions, 28);
    size[0] = 1;
    size[1] = channels;
    return size;
  }

  void take_what_is_around(ConvPlan& plan, ConvFusion fusion) {
    take_pad(fusion);
    take_sum(fusion);
    take_activation(fusion);
    steps_.insert(fusion.last());
    if (fusion.sum != nullptr) sums_.insert(fusion.sum);
    positions_.emplace(fusion.conv, fusion.last());
    plan.fusions.push_back(std::move(fusion));
  }

  void take_pad(ConvFusion& fusion) {
    jit::Node* pad = fusion.conv->input(0)->node();
    if (fusion.geometry.transposed() || !pads_with_zeros(pad)) return;
    const auto padding = even_padding(pad, fusion.geometry.padding.size());
    if (!padding) return leave(fusion, pad, FusionObstacle::operand_unsupported, "a step pads both sides alike");
    if (fusion.conv->input(0)->uses().size() != 1 || pad->owningBlock() != fusion.conv->owningBlock()) {
      return leave(fusion, pad, FusionObstacle::value_has_other_readers, "something else reads what it pads");
    }
    if (is_written(pad->input(0))) {
      return leave(fusion, pad, FusionObstacle::value_changed_in_place, "what it pads is written into");
    }
    fusion.pad = pad;
    for (size_t i = 0; i < padding->size(); ++i) {
      fusion.geometry.padding[i] += padding->at(i);
      fusion.input_size[i + 2] -= 2 * padding->at(i);
    }
  }

  // The first node of the kind behind the fusion so far; says why, where it can't be taken.
  template <typename IsKind>
  jit::Node* behind(const ConvFusion& fusion, const IsKind& is_kind) {
    const auto follower = follower_of(fusion.last(), is_kind);
    if (!follower || follower->alone) return follower ? follower->node : nullptr;
    leave(fusion, follower->node, FusionObstacle::value_has_other_readers, "something else reads what lies between");
    return nullptr;
  }

  void leave(const ConvFusion& fusion, const jit::Node* node, FusionObstacle obstacle, const std::string& detail) {
    left_.push_back({fusion.conv, node, {fusion.layer, step_of(node), obstacle, detail}});
  }

  void leave(ConvPlan& plan, const ConvFusion& slower) {
    steps_.erase(slower.last());
    const auto is_beside = [&slower](const Left& left) { return left.conv == slower.conv; };
    left_.erase(std::remove_if(left_.begin(), left_.end(), is_beside), left_.end());
    plan.unfused.push_back(
        {slower.layer, step_of(slower.conv), FusionObstacle::product_too_small,
         fmt::format("a weight of {} at an input of {}", c10::str(slower.weight.sizes()), c10::str(slower.input_size))});
  }

  void take_sum(ConvFusion& fusion) {
    jit::Node* sum = behind(fusion, is_sum);
    if (sum == nullptr) return;
    const jit::Value* value = fusion.conv->output();
    const size_t addend = sum->input(0) == value ? 1 : 0;
    if (sums_.count(sum) != 0) return;  // by the other addend, a convolution too
    if (fusion.geometry.transposed()) {
      return leave(fusion, sum, FusionObstacle::operand_unsupported, "the step of a transposed convolution takes none");
    }
    if (weight_in_sum(sum, 1) != 1.0) {
      return leave(fusion, sum, FusionObstacle::operand_unsupported, "it counts one addend otherwise");
    }
    if (!facts_.have_one_size(value, sum->input(addend))) {
      return leave(fusion, sum, FusionObstacle::sizes_unknown, "its addend may be broadcast");
    }
    if (!facts_.have_one_dtype(value, sum->input(addend))) {
      return leave(fusion, sum, FusionObstacle::sizes_unknown, "its addend may have another dtype");
    }
    fusion.sum = sum;
    fusion.addend = addend;
  }

  void take_activation(ConvFusion& fusion) {
    jit::Node* node = behind(fusion, [](const jit::Node* one) { return activation_of(one).has_value(); });
    if (node == nullptr) return;
    if (fusion.sum != nullptr && activation_of(node)->name != "relu") {
      return leave(fusion, node, FusionObstacle::operand_unsupported, "behind a sum oneDNN's step has ReLU alone");
    }
    if (fusion.sum != nullptr && changes_between(fusion.sum->input(fusion.addend), fusion.sum, node)) {
      return leave(fusion, node, FusionObstacle::value_changed_in_place, "the addend of the sum is written into before it");
    }
    fusion.activation = node;
  }

  bool changes_between(const jit::Value* value, const jit::Node* one, const jit::Node* other) const {
    return is_written(value) && !store_.memory().read_the_same(value, one, other);
  }

  // Whether the addend is the memory of a step, which only steps before this one read beside it. A loop reads it in each round.
  bool is_free(const ConvFusion& fusion) const {
    const jit::Value* addend = fusion.sum->input(fusion.addend);
    if (steps_.count(addend->node()) == 0 || is_in_loop_behind(fusion.sum, addend->node())) return false;
    return std::all_of(addend->uses().begin(), addend->uses().end(), [&](const jit::Use& use) {
      if (use.user == fusion.sum) return true;
      const auto position = positions_.find(use.user);
      return position != positions_.end() && position->second->owningBlock() == fusion.last()->owningBlock() &&
             position->second->isBefore(fusion.last());
    });
  }

  const std::shared_ptr<jit::Graph>& graph_;
  const ParameterStore store_;
  const Facts& facts_;
  std::unordered_set<const jit::Node*> steps_;  // the last nodes of the fusions
  std::unordered_set<const jit::Node*> sums_;   // that they take
  std::vector<Left> left_;                      // sums and activations; a sum may yet be taken by its other addend
  std::unordered_map<const jit::Node*, const jit::Node*> positions_;  // the last nodes, by convolution
};

}  // namespace

ConvPlan plan_convs(const std::shared_ptr<jit::Graph>& graph, const Facts& facts) {
  return Planner(graph, facts).run();
}

}  // namespace bnfold
