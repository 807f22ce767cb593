#include "fuse/memory_order.h"

#include <ATen/ATen.h>

#include <vector>

#include "graph/constants.h"
#include "graph/memory.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Reads every order, and makes contiguous memory.
bool makes_memory(const jit::Node* node) {
  return is_one_of(node, {"linear", "addmm", "matmul", "mm", "bmm", "layer_norm", "contiguous"});
}

// `contiguous` of what a layer makes did nothing before the layer was a step, and is put in front of whatever needs it now.
bool was_contiguous_before(const jit::Node* node) {
  return is_one_of(node, {"contiguous"}) && is_step(node->input(0)->node()) &&
         constant_int(node->input(1)) == static_cast<int64_t>(at::MemoryFormat::Contiguous);
}

class Restorer {
 public:
  Restorer(jit::Graph& graph, const std::unordered_set<jit::Value*>& steps) : graph_(graph), reordered_(steps) {}

  void visit(jit::Block* block) {
    const std::vector<jit::Node*> nodes(block->nodes().begin(), block->nodes().end());
    for (jit::Node* node : nodes) {
      visit(node);
      for (jit::Block* inner : node->blocks()) visit(inner);
    }
    restore_inputs(block->return_node());
  }

 private:
  void visit(jit::Node* node) {
    if (was_contiguous_before(node)) return node->output()->replaceAllUsesWith(node->input(0));
    if (is_step(node) || makes_memory(node)) return;
    bool reads = false;
    for (jit::Value* input : node->inputs()) reads |= reordered_.count(input) != 0 && !reads_metadata_only(node, input);
    if (!reads) return;
    if (!passes_order(node)) return restore_inputs(node);
    for (jit::Value* output : node->outputs()) reordered_.insert(output);
  }

  void restore_inputs(jit::Node* node) {
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      jit::Value* input = node->input(i);
      if (reordered_.count(input) == 0 || input->type()->kind() != c10::TypeKind::TensorType) continue;
      const jit::WithInsertPoint before(node);
      jit::Value* format = graph_.insertConstant(static_cast<int64_t>(at::MemoryFormat::Contiguous));
      jit::Node* contiguous = graph_.insertNode(graph_.create(jit::aten::contiguous, {input, format}));
      contiguous->output()->setType(c10::TensorType::get());
      node->replaceInput(i, contiguous->output());
    }
  }

  jit::Graph& graph_;
  std::unordered_set<jit::Value*> reordered_;  // what may lie in another order than before
};

}  // namespace

bool passes_order(const jit::Node* node) {
  static const OperatorNames others = {"add",
                                       "sub",
                                       "mul",
                                       "div",
                                       "maximum",
                                       "minimum",
                                       "clamp",
                                       "clamp_min",
                                       "clamp_max",
                                       "cat",
                                       "mean",
                                       "sum",
                                       "amax",
                                       "amin",
                                       "pad",
                                       "constant_pad_nd",
                                       "flatten",
                                       "reshape",
                                       "permute",
                                       "transpose",
                                       "slice",
                                       "select",
                                       "chunk",
                                       "split",
                                       "split_with_sizes",
                                       "unsqueeze",
                                       "squeeze",
                                       "expand",
                                       "expand_as",
                                       "where",
                                       "pow",
                                       "channel_shuffle",
                                       "pixel_shuffle"};
  if (node->kind() == jit::prim::ListConstruct) return only_concatenation(node) != nullptr;
  return node->kind() == jit::prim::ListUnpack || keeps_sizes(node) || keeps_channels(node) || is_one_of(node, others);
}

void restore_memory_order(jit::Graph& graph, const std::unordered_set<jit::Value*>& steps) {
  Restorer(graph, steps).visit(graph.block());
}

}  // namespace bnfold
