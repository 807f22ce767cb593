#include "graph/parameter_store.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "graph/graph_walk.h"
#include "graph/order_in_memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Freezing names a constant after the attribute that it was: "self.layer1.0.conv1.weight".
std::string without_self(const std::string& name) {
  return name.rfind("self.", 0) == 0 ? name.substr(5) : name;
}

}  // namespace

ParameterStore::ParameterStore(const Program& program) {
  for (const std::string& name : program.preserved_values) assigned_.emplace(program.module._ivalue().get(), name);
  for (const Program::Method& method : program.methods) places_.record(*method.graph, program.module);
  for (const Program::Method& method : program.methods) record_assigned(*method.graph);
  for (const Program::Method& method : program.methods) record(method.graph);
}

void ParameterStore::record(const std::shared_ptr<jit::Graph>& graph) {
  read_memory(*graph);
  for_each_node(graph->block(), [&](jit::Node* node) {
    const bool leaf = node->kind() == jit::prim::GetAttr || node->kind() == jit::prim::Constant;
    const auto content = leaf ? stored(node->output()) : std::nullopt;
    if (!content || !content->isTensor() || !content->toTensor().defined()) return;
    channels_last_ |= is_channels_last(content->toTensor());
    record_device(content->toTensor());
    if (memory_->may_be_written(node->output())) written_storages_.insert(storage_of(content->toTensor()));
  });
}

void ParameterStore::record_device(const at::Tensor& tensor) {
  const bool known = std::find(devices_.begin(), devices_.end(), tensor.device()) != devices_.end();
  if (tensor.dim() != 0 && !known) devices_.push_back(tensor.device());
}

bool ParameterStore::is_on_gpu() const {
  return std::any_of(devices_.begin(), devices_.end(), [](const at::Device& device) { return device.is_cuda(); });
}

void ParameterStore::read_memory(const jit::Graph& graph) {
  memory_.emplace(graph, [this](const jit::Value* value) { return stored(value); });
}

void ParameterStore::record_assigned(const jit::Graph& graph) {
  for_each_node(graph.block(), [this](const jit::Node* node) {
    if (node->kind() != jit::prim::SetAttr) return;
    const ModulePlaces::Place* parent = places_.find(node->input(0));
    if (parent != nullptr) assigned_.emplace(parent->module._ivalue().get(), node->s(jit::attr::name));
  });
}

std::optional<std::string> ParameterStore::module_path(const jit::Value* value) const {
  const ModulePlaces::Place* place = places_.find(value);
  if (place == nullptr) return std::nullopt;
  return place->path;
}

std::optional<c10::IValue> ParameterStore::stored(const jit::Value* value) const {
  const jit::Node* node = value->node();
  if (const Added* leaf = added(node)) return c10::IValue(leaf->tensor);
  if (node->kind() == jit::prim::Constant) return jit::toIValue(value);
  if (node->kind() != jit::prim::GetAttr) return std::nullopt;
  const ModulePlaces::Place* parent = places_.find(node->input());
  if (parent == nullptr) return std::nullopt;
  const std::string& name = node->s(jit::attr::name);
  if (assigned_.count({parent->module._ivalue().get(), name}) != 0) return std::nullopt;
  return parent->module.attr(name);
}

std::optional<at::Tensor> ParameterStore::read(const jit::Value* value) const {
  const auto content = stored(value);
  if (!content) return std::nullopt;
  if (content->isNone()) return at::Tensor();
  if (!content->isTensor()) return std::nullopt;
  at::Tensor tensor = content->toTensor();
  if (tensor.defined() && is_written(tensor)) return std::nullopt;
  return tensor;
}

bool ParameterStore::is_written(const at::Tensor& tensor) const {
  return written_storages_.count(storage_of(tensor)) != 0;
}

std::string ParameterStore::path(const jit::Value* value) const {
  const jit::Node* node = value->node();
  if (const Added* leaf = added(node)) return joined(layer(value), leaf->name);
  if (node->kind() == jit::prim::GetAttr) {
    return joined(module_path(node->input()).value_or(""), node->s(jit::attr::name));
  }
  return without_self(value->debugName());
}

std::string ParameterStore::layer(const jit::Value* value) const {
  const jit::Node* node = value->node();
  if (node->kind() == jit::prim::GetAttr) {
    std::string module = module_path(node->input()).value_or("");
    module.erase(std::min(module.find(".parametrizations."), module.size()));
    return module.empty() ? node->s(jit::attr::name) : module;
  }
  const std::string constant = without_self(value->debugName());
  const size_t dot = constant.rfind('.');
  return dot == std::string::npos ? constant : constant.substr(0, dot);
}

jit::Value* ParameterStore::add(jit::Value* beside, const std::string& name, const at::Tensor& tensor) {
  jit::Node* neighbour = beside->node();
  if (neighbour->kind() == jit::prim::Constant) return add_constant(neighbour, layer(beside) + "." + name, tensor);
  const auto neighbours_tensor = read(beside);
  tensor.set_requires_grad(neighbours_tensor && neighbours_tensor->defined() && neighbours_tensor->requires_grad());
  return add_leaf(neighbour->input(), neighbour, {name, tensor, /*is_buffer=*/false, added_.size()});
}

jit::Value* ParameterStore::add_buffer(jit::Value* beside, const std::string& name, const at::Tensor& tensor) {
  jit::Node* neighbour = beside->node();
  if (neighbour->kind() == jit::prim::Constant) return add_constant(neighbour, layer(beside) + "_" + name, tensor);
  jit::Node* reads_layer = neighbour->input()->node();
  const bool held = reads_layer->kind() == jit::prim::GetAttr && places_.find(reads_layer->input()) != nullptr;
  const std::string layer_name = (held ? reads_layer : neighbour)->s(jit::attr::name);
  jit::Value* holder = held ? reads_layer->input() : neighbour->input();
  return add_leaf(holder, neighbour, {layer_name + "_" + name, tensor, /*is_buffer=*/true, added_.size()});
}

jit::Value* ParameterStore::add_leaf(jit::Value* module, jit::Node* behind, Added added) {
  jit::Node* leaf = behind->owningGraph()->create(jit::prim::GetAttr, {module});
  leaf->s_(jit::attr::name, added.name);
  leaf->output()->setType(c10::TensorType::get());
  leaf->insertAfter(behind);
  added_.insert_or_assign(leaf, std::move(added));
  return leaf->output();
}

jit::Value* ParameterStore::add_constant(jit::Node* behind, const std::string& name, const at::Tensor& tensor) {
  const jit::WithInsertPoint after(behind->next());
  return behind->owningGraph()->insertConstant(tensor)->setDebugName("self." + name);
}

const ParameterStore::Added* ParameterStore::added(const jit::Node* node) const {
  // A node that was made later may have the address of one that is gone.
  const bool is_leaf = node->kind() == jit::prim::GetAttr || node->kind() == jit::prim::Constant;
  if (!is_leaf || node->output()->type()->kind() != c10::TypeKind::TensorType) return nullptr;
  const auto found = added_.find(node);
  return found == added_.end() ? nullptr : &found->second;
}

}  // namespace bnfold
