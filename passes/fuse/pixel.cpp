// A convolution of a single pixel becomes a linear layer over its channels.
//
//   before   x --> adaptive_avg_pool2d(1) --> conv2d(W [O, I, 1, 1], b) --> s
//   after    x --> adaptive_avg_pool2d(1) --> flatten(-3) --> linear(W [O, I], b) --> unsqueeze(-1) --> unsqueeze(-1) --> s
//
// In a squeeze and excitation and its like there are two of them for each block, with few products, and a convolution takes 30 us around
// its kernel, a linear layer 6.
//
// Conditions  a constant window of 1 x 1 that moves by 1, no padding, one group
//             the input is one pixel whatever the sizes of an image: it comes from pooling or reduction to one, through other such
//             convolutions and what keeps sizes, and nothing writes into it, which could change its sizes
#include "fuse/pixel.h"

#include <unordered_set>
#include <vector>

#include "fuse/step.h"
#include "graph/constants.h"
#include "graph/conv_geometry.h"
#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/parameter_store.h"
#include "graph/reduction.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

using Ints = std::vector<int64_t>;

bool pools_to_one_pixel(const jit::Node* node) {
  return operator_of(node).shape == Shape::adapted && constant_ints(node->input(1)) == Ints{1, 1};
}

bool reduces_to_one_pixel(const jit::Node* node) {
  if (operator_of(node).shape != Shape::reduced) return false;
  const auto reduction = reduction_of(node, 4);
  return reduction && reduction->keeps && reduction->dimensions == Ints{2, 3};
}

class Finder {
 public:
  explicit Finder(const ParameterStore& store) : store_(store) {}

  std::vector<jit::Node*> run(jit::Graph& graph) {
    std::vector<jit::Node*> found;
    for_each_node(graph.block(), [&](jit::Node* node) {
      if (!is_convolution_of_pixel(node)) return;
      found.push_back(node);
      pixels_.insert(node->output());
    });
    return found;
  }

 private:
  bool is_convolution_of_pixel(const jit::Node* node) const {
    if (!is_forward_conv(node) || !is_pixel(node->input(0))) return false;
    const auto weight = store_.read(node->namedInput("weight"));
    if (!weight || !weight->defined() || weight->dim() != 4) return false;
    const auto geometry = conv_geometry(node, *weight);
    return geometry && weight->sizes().slice(2) == Ints{1, 1} && geometry->stride == Ints{1, 1} &&
           geometry->padding == Ints{0, 0} && geometry->groups == 1;
  }

  bool is_pixel(const jit::Value* value) const {
    const jit::Node* node = value->node();
    if (store_.memory().may_be_written(value) || value->offset() != 0) return false;
    return pixels_.count(value) != 0 || pools_to_one_pixel(node) || reduces_to_one_pixel(node) ||
           (keeps_sizes(node) && is_pixel(node->input(0)));
  }

  const ParameterStore& store_;
  std::unordered_set<const jit::Value*> pixels_;  // that such convolutions make
};

void apply(jit::Node* conv, ParameterStore& store, Facts& facts) {
  jit::Graph& graph = *conv->owningGraph();
  const jit::WithInsertPoint before(conv);
  jit::Value* weight = conv->namedInput("weight");
  jit::Value* last = graph.insertConstant(-1);
  jit::Value* channels = insert_operator("aten::flatten", {conv->input(0), graph.insertConstant(-3), last}, conv);
  jit::Value* matrix = store.add(weight, "weight", store.read(weight)->flatten(1).contiguous());
  jit::Value* linear = insert_operator("aten::linear", {channels, matrix, conv->namedInput("bias")}, conv);
  jit::Value* row = insert_operator("aten::unsqueeze", {linear, last}, conv);
  jit::Value* result = insert_operator("aten::unsqueeze", {row, last}, conv);
  if (const auto* input = facts.example_of(conv->input(0))) {
    facts.set_example(channels, {input->begin(), input->end() - 2});
  }
  facts.replace(conv->output(), result);
  conv->output()->replaceAllUsesWith(result);
  conv->destroy();
}

}  // namespace

void use_linear_for_pixels(const std::shared_ptr<jit::Graph>& graph, Facts& facts) {
  ParameterStore store(graph);
  for (jit::Node* conv : Finder(store).run(*graph)) apply(conv, store, facts);
}

}  // namespace bnfold
