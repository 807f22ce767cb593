#include "onednn/extraction.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "module/free_attribute.h"
#include "onednn/runner.h"
#include "onednn/steps.h"

namespace bnfold::onednn {

namespace jit = torch::jit;

namespace {

// The steps of a region, and the values of the graph that are their inputs and outputs.
class Reading {
 public:
  explicit Reading(const Region& region) {
    for (const jit::Node* node : region) made_.insert(node->output());
    for (jit::Node* node : region) find_inputs(node);
    for (size_t i = 0; i < region.size(); ++i) numbers_[region[i]->output()] = inputs.size() + i;
    steps.inputs = inputs.size();
    for (jit::Node* node : region) read(node);
  }

  Steps steps;
  std::vector<jit::Value*> inputs;
  std::vector<jit::Value*> outputs;

 private:
  void find_inputs(jit::Node* node) {
    for (jit::Value* input : node->inputs()) {
      if (is_list_of_parts(input->node())) {
        find_inputs(input->node());
      } else if (input->node()->kind() != jit::prim::Constant && made_.count(input) == 0 &&
                 numbers_.emplace(input, inputs.size()).second) {
        inputs.push_back(input);
      }
    }
  }

  void read(jit::Node* node) {
    const c10::FunctionSchema& schema = node->schema();
    Call call{c10::Dispatcher::singleton().findSchemaOrThrow(schema.name().c_str(), schema.overload_name().c_str()), {}};
    for (const jit::Value* input : node->inputs()) call.arguments.push_back(argument_of(input));
    steps.calls.push_back(std::move(call));
    const auto& uses = node->output()->uses();
    const bool is_read_outside = std::any_of(uses.begin(), uses.end(), [&](const jit::Use& use) {
      const jit::Node* reader = is_list_of_parts(use.user) ? only_concatenation(use.user) : use.user;
      return std::none_of(reader->outputs().begin(), reader->outputs().end(),
                          [this](const jit::Value* value) { return made_.count(value) != 0; });
    });
    if (!is_read_outside) return;
    outputs.push_back(node->output());
    steps.outputs.push_back(numbers_.at(node->output()));
  }

  CallArgument argument_of(const jit::Value* value) {
    if (is_list_of_parts(value->node())) {
      ListOfValues list;
      for (const jit::Value* part : value->node()->inputs()) list.numbers.push_back(numbers_.at(part));
      return list;
    }
    const auto constant = jit::toIValue(value);
    if (!constant) return ValueAt{numbers_.at(value)};
    if (!constant->isTensor()) return *constant;
    const auto [found, is_new] = weights_.emplace(value, steps.weights.size());
    if (is_new) steps.weights.push_back(weight_of(constant->toTensor()));
    return WeightAt{found->second};
  }

  std::unordered_set<const jit::Value*> made_;
  std::unordered_map<const jit::Value*, size_t> numbers_;
  std::unordered_map<const jit::Value*, size_t> weights_;
};

// What reads `results` in front of the last node of the region goes behind it.
void move_readers_behind(const Region& region, const std::vector<jit::Value*>& results) {
  const std::unordered_set<const jit::Node*> inside(region.begin(), region.end());
  std::unordered_set<const jit::Value*> later(results.begin(), results.end());
  jit::Node* behind = region.back();
  for (jit::Node* node = region.front(); node != region.back();) {
    jit::Node* next = node->next();
    const bool reads = std::any_of(node->inputs().begin(), node->inputs().end(),
                                   [&](const jit::Value* input) { return later.count(input) != 0; });
    const bool belongs = inside.count(is_list_of_parts(node) ? only_concatenation(node) : node) != 0;
    if (reads && !belongs) {
      later.insert(node->outputs().begin(), node->outputs().end());
      node->moveAfter(behind);
      behind = node;
    }
    node = next;
  }
}

void remove(const Region& region) {
  for (auto node = region.rbegin(); node != region.rend(); ++node) {
    std::vector<jit::Node*> lists;
    for (jit::Value* input : (*node)->inputs()) {
      if (is_list_of_parts(input->node())) lists.push_back(input->node());
    }
    (*node)->destroy();
    for (jit::Node* list : lists) list->destroy();
  }
}

}  // namespace

jit::Node* extract(const Region& region, jit::Module& module, jit::Graph& graph) {
  Reading reading(region);
  const std::string name = free_attribute(module, "onednn_steps");
  const c10::IValue runner = runner_of(std::move(reading.steps));
  module.register_attribute(name, runner.type(), runner);

  move_readers_behind(region, reading.outputs);
  const jit::WithInsertPoint behind(region.back()->next());
  jit::Value* object = graph.insertGetAttr(graph.inputs().at(0), name);
  jit::Value* list = graph.insertNode(graph.createList(c10::TensorType::get(), reading.inputs))->output();
  jit::Node* call = graph.insertNode(graph.create(jit::prim::CallMethod, {object, list}));
  call->s_(jit::attr::name, "run");
  call->output()->setType(c10::ListType::ofTensors());
  jit::Node* results = graph.insertNode(graph.createListUnpack(call->output(), reading.outputs.size()));
  for (size_t i = 0; i < reading.outputs.size(); ++i) reading.outputs[i]->replaceAllUsesWith(results->outputs()[i]);
  remove(region);
  return results->next();
}

}  // namespace bnfold::onednn
