#include "fuse/memory_order.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "graph/constants.h"
#include "graph/memory.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Reads `value` in every order, and what it makes lies as it did before: in an order of its own, or where what it overwrites lies.
bool leaves_order(const jit::Node* node, const jit::Value* value) {
  const Operator& known = operator_of(node);
  if (known.in_place) return value != node->input(0);
  return known.order == Order::contiguous || known.order == Order::stated;
}

// Whether the output of an operator may lie in another order in memory where `value` does.
bool may_pass_order(const jit::Node* node, const jit::Value* value) {
  return !is_convolution(node) && !leaves_order(node, value);
}

// What has no order in the table may ask for one. A convolution that is no step is as fast as it was in the order that it had.
bool reads_every_order(const jit::Node* node) {
  if (node->kind() == jit::prim::ListConstruct) {
    const jit::Node* concatenation = only_concatenation(node);
    return concatenation != nullptr && operator_of(concatenation).order != Order::unknown;
  }
  if (node->kind() == jit::prim::ListUnpack) return true;
  return operator_of(node).order != Order::unknown && !is_convolution(node);
}

// Of images, which operators for volumes take as volumes without a batch, and then raise an error in channels_last.
bool makes_images(const jit::Value* step) {
  const jit::Node* node = step->node();
  const auto padding = has_argument(node, "padding") ? constant_ints(node->namedInput("padding")) : std::nullopt;
  return !padding || padding->size() < 3;
}

bool is_for_volumes(const jit::Node* node) {
  const std::string_view name = node->kind().toUnqualString();
  return name.size() > 2 && name.substr(name.size() - 2) == "3d";
}

// `contiguous` of what a layer makes did nothing before the layer was a step, and is put in front of whatever needs it now.
bool was_contiguous_before(const jit::Node* node) {
  return node->kind() == jit::aten::contiguous && is_step(node->input(0)->node()) &&
         constant_int(node->input(1)) == static_cast<int64_t>(at::MemoryFormat::Contiguous);
}

// What a reader makes; of what a block returns the node around it makes its outputs, and a loop the inputs of its next round.
std::vector<const jit::Value*> made_of(const jit::Use& use) {
  const jit::Node* reader = use.user;
  const jit::Node* around = reader->kind() == jit::prim::Return ? reader->owningBlock()->owningNode() : nullptr;
  const jit::Node* maker = around != nullptr ? around : reader;
  std::vector<const jit::Value*> values(maker->outputs().begin(), maker->outputs().end());
  for (const jit::Block* block : maker->blocks()) values.insert(values.end(), block->inputs().begin(), block->inputs().end());
  return values;
}

class Restorer {
 public:
  Restorer(jit::Graph& graph, const std::unordered_set<jit::Value*>& steps)
      : graph_(graph), makes_images_(std::any_of(steps.begin(), steps.end(), makes_images)), reordered_(steps) {}

  void visit(jit::Block* block) {
    const std::vector<jit::Node*> nodes(block->nodes().begin(), block->nodes().end());
    for (jit::Node* node : nodes) {
      visit(node);
      for (jit::Block* inner : node->blocks()) visit(inner);
    }
    restore_inputs(block->return_node());
  }

  std::unordered_set<jit::Value*> take_reordered() { return std::move(reordered_); }

 private:
  void visit(jit::Node* node) {
    if (was_contiguous_before(node)) return node->output()->replaceAllUsesWith(node->input(0));
    if (is_step(node)) return;
    bool reads = false;
    for (size_t place = 0; place < node->inputs().size(); ++place) {
      jit::Value* input = node->input(place);
      reads |= reordered_.count(input) != 0 && !reads_metadata_only(jit::Use(node, place)) && !leaves_order(node, input);
    }
    if (!reads) return;
    if (!reads_every_order(node) || (makes_images_ && is_for_volumes(node))) return restore_inputs(node);
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
  const bool makes_images_;
  std::unordered_set<jit::Value*> reordered_;  // what may lie in another order than before
};

}  // namespace

std::vector<const jit::Value*> values_in_order_of(const jit::Value* step) {
  std::vector<const jit::Value*> values = {step};
  std::unordered_set<const jit::Value*> seen = {step};
  for (size_t i = 0; i < values.size(); ++i) {
    for (const jit::Use& use : values[i]->uses()) {
      if (reads_metadata_only(use) || !may_pass_order(use.user, values[i])) continue;
      for (const jit::Value* output : made_of(use)) {
        if (seen.insert(output).second) values.push_back(output);
      }
    }
  }
  return values;
}

std::unordered_set<jit::Value*> restore_memory_order(jit::Graph& graph, const std::unordered_set<jit::Value*>& steps) {
  Restorer restorer(graph, steps);
  restorer.visit(graph.block());
  return restorer.take_reordered();
}

}  // namespace bnfold
