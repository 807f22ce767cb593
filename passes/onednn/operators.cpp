// What optimize_for_inference asks of oneDNN, as an operator, so that the library that has it may be there or not.
#include <ATen/core/stack.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/library.h>

#include <optional>

#include "bnfold/onednn.h"
#include "graph/parameter_store.h"
#include "onednn/extraction.h"
#include "onednn/region.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr int64_t kFewestLayers = 2;  // with one there is nothing between two

std::vector<std::string> layers_in(const onednn::Region& region, const ParameterStore& store) {
  std::vector<std::string> layers;
  for (const jit::Node* node : region) {
    if (onednn::is_layer(node)) layers.push_back(store.layer(node->namedInput("weight")));
  }
  return layers;
}

// move_into_onednn(Any module, str method) -> str[]: the layers of a frozen module that networks compute from now on, in its graph
std::vector<std::string> move_into_networks(jit::Module& module, const std::string& method) {
  const auto graph = module.get_method(method).graph();
  std::vector<std::string> moved;
  std::optional<ParameterStore> store;
  for (jit::Node* node = *graph->nodes().begin(); node->kind() != jit::prim::Return;) {
    jit::Node* next = node->next();
    if (onednn::is_layer(node)) {
      if (!store) store.emplace(graph);
      const onednn::Region region = onednn::region_from(node, store->memory());
      const std::vector<std::string> layers = layers_in(region, *store);
      if (layers.size() >= kFewestLayers) {
        moved.insert(moved.end(), layers.begin(), layers.end());
        next = onednn::extract(region, module, *graph);
        store.reset();
      }
    }
    node = next;
  }
  return moved;
}

void move_into_onednn(const c10::OperatorHandle&, jit::Stack* stack) {
  const std::string method = jit::pop(*stack).toStringRef();
  jit::Module module(jit::pop(*stack).toObject());
  jit::push(*stack, move_into_networks(module, method));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(bnfold, library) {
  library.def("move_into_onednn(Any module, str method) -> str[]",
              torch::CppFunction::makeFromBoxedFunction<&move_into_onednn>());
}

void load_onednn() {}

}  // namespace bnfold
