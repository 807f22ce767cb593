// A linear layer and the activation behind it become one step of oneDNN.
//
//   before   x --> linear(W, b) --> gelu --> y          after   x --> _linear_pointwise(W', b) --> y
//
// W' is W in the order that the kernel reads, a packed weight. The step makes contiguous memory, as the layer does.
//
// Conditions  of the layer, in this order
//             weight and bias are constants                                       weight_not_static
//             they are float tensors on the CPU, the weight [O, I]                weight_unsupported
//             the run told how many rows its input has                            sizes_unknown
//             there are at least 8 rows, and 2^23 products in all: below, the
//             product that LibTorch makes without a packed weight is as fast      product_too_small
//             of the activation
//             nothing else reads what lies before it                              value_has_other_readers
//             nothing writes into the input before it: the step stands there      value_changed_in_place
#include "fuse/linear.h"

#include <fmt/format.h>

#include <optional>
#include <utility>
#include <variant>

#include "fuse/activation.h"
#include "fuse/step.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/parameter_store.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr int64_t kFewestRows = 8;
constexpr int64_t kFewestProducts = 1 << 23;

using Decision = std::variant<LinearFusion, UnfusedStep>;

std::optional<int64_t> rows_of(const jit::Value* input, const Facts& facts) {
  const auto* example = facts.example_of(input);
  if (example == nullptr || example->empty()) return std::nullopt;
  return c10::multiply_integers(example->begin(), example->end() - 1);
}

Decision decide(jit::Node* linear, const ParameterStore& store, const Facts& facts) {
  const auto weight = store.read(linear->namedInput("weight"));
  const auto bias = store.read(linear->namedInput("bias"));
  const auto stays = [&](FusionObstacle obstacle, const std::string& detail) {
    return UnfusedStep{weight ? store.layer(linear->namedInput("weight")) : "linear", "linear", obstacle, detail};
  };
  if (!weight || !weight->defined() || !bias) return stays(FusionObstacle::weight_not_static, "its weight or bias is computed");
  for (const at::Tensor& tensor : {*weight, *bias}) {
    if (tensor.defined() && !can_be_packed(tensor)) return stays(FusionObstacle::weight_unsupported, "a " + tensor.toString());
  }
  if (weight->dim() != 2) return stays(FusionObstacle::weight_unsupported, "a vector");
  const auto rows = rows_of(linear->input(0), facts);
  if (!rows) return stays(FusionObstacle::sizes_unknown, "no run told how many rows its input has");
  if (*rows < kFewestRows || *rows * weight->numel() < kFewestProducts) {
    return stays(FusionObstacle::product_too_small, fmt::format("[{}, {}] of {} rows", weight->size(0), weight->size(1), *rows));
  }
  return LinearFusion{linear, store.layer(linear->namedInput("weight")), *rows};
}

void take_activation(LinearFusion& fusion, const Memory& memory, std::vector<UnfusedStep>& unfused) {
  const auto follower = follower_of(fusion.linear, [](const jit::Node* one) { return activation_of(one).has_value(); });
  if (!follower) return;
  const auto leave = [&](FusionObstacle obstacle, const std::string& detail) {
    unfused.push_back({fusion.layer, follower->node->kind().toUnqualString(), obstacle, detail});
  };
  if (!follower->alone) return leave(FusionObstacle::value_has_other_readers, "something else reads what lies between");
  if (!memory.read_the_same(fusion.linear->input(0), fusion.linear, follower->node)) {
    return leave(FusionObstacle::value_changed_in_place, "the input of the layer is written into before it");
  }
  fusion.activation = follower->node;
}

}  // namespace

LinearPlan plan_linears(const std::shared_ptr<jit::Graph>& graph, const Facts& facts) {
  const ParameterStore store(graph);
  LinearPlan plan;
  for_each_node(graph->block(), [&](jit::Node* node) {
    if (node->kind() != jit::aten::linear) return;
    Decision decision = decide(node, store, facts);
    if (auto* unfused = std::get_if<UnfusedStep>(&decision)) return plan.unfused.push_back(std::move(*unfused));
    auto& fusion = std::get<LinearFusion>(decision);
    take_activation(fusion, store.memory(), plan.unfused);
    plan.fusions.push_back(std::move(fusion));
  });
  return plan;
}

jit::Value* apply(const LinearFusion& fusion, WeightPacker& packer) {
  jit::Node* linear = fusion.linear;
  jit::Node* last = fusion.last();
  jit::Graph& graph = *linear->owningGraph();
  const jit::WithInsertPoint before(last);
  const at::Tensor weight = jit::toIValue(linear->namedInput("weight"))->toTensor();
  std::vector<jit::Value*> inputs = {linear->input(0), packer.add_linear(fusion.layer, weight, fusion.rows, last),
                                     linear->namedInput("bias")};
  append_activation(fusion.activation != nullptr ? *activation_of(fusion.activation) : Activation(), graph, inputs);
  jit::Value* step = insert_operator("mkldnn::_linear_pointwise", inputs, linear);
  replace_by_step(fusion.nodes(), step);
  return step;
}

}  // namespace bnfold
