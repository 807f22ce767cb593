#include "module/trial_run.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <unordered_set>

#include "graph/graph_walk.h"
#include "graph/memory.h"
#include "module/value_copies.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Whether forward may write into a tensor that the module holds.
bool writes_attributes(const jit::Module& module) {
  const auto graph = jit::toGraphFunction(module.get_method("forward").function()).graph()->copy();
  jit::Inline(*graph);
  const Memory memory(*graph);
  bool found = false;
  for_each_node(graph->block(), [&](const jit::Node* node) {
    found |= node->kind() == jit::prim::GetAttr && memory.may_be_written(node->output());
  });
  return found;
}

// Inputs that came through an operator are plain tuples where forward takes named ones.
c10::IValue as_argument(const c10::IValue& input, const c10::TypePtr& type) {
  const auto tuple = type->cast<c10::TupleType>();
  if (!tuple || !tuple->schema() || !input.isTuple()) return input.deepcopy();
  return c10::ivalue::Tuple::createNamed(input.deepcopy().toTupleRef().elements().vec(), tuple);
}

}  // namespace

RandomState::RandomState() {
  generators_.push_back(at::globalContext().defaultGenerator(at::kCPU));
  const int gpus = at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
  for (int gpu = 0; gpu < gpus; ++gpu)
    generators_.push_back(at::globalContext().defaultGenerator({at::kCUDA, static_cast<int8_t>(gpu)}));
  for (const at::Generator& generator : generators_) states_.push_back(generator.get_state());
}

RandomState::~RandomState() {
  for (size_t i = 0; i < generators_.size(); ++i) generators_[i].set_state(states_[i]);
}

jit::Module copy_to_run(const jit::Module& module) {
  if (writes_attributes(module)) return ValueCopies().copy(module._ivalue()).toModule();
  std::unordered_set<const void*> buffers;
  for (const at::Tensor& buffer : module.buffers()) buffers.insert(storage_of(buffer));
  ValueCopies copies;
  for (const at::Tensor& parameter : module.parameters()) {
    if (buffers.count(storage_of(parameter)) == 0) copies.share_memory_of(parameter);
  }
  return copies.copy(module._ivalue()).toModule();
}

InputError input_error(const std::string& sentence) {
  return InputError("the module can't run on the given input: " + sentence);
}

c10::IValue run_forward(const jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const auto output = module.get_method("forward").run_async(arguments_to_run(module, inputs), {}, launch_here);
  output->waitAndThrow();
  return output->value();
}

std::vector<c10::IValue> arguments_to_run(const jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const auto& arguments = module.get_method("forward").function().getSchema().arguments();
  std::vector<c10::IValue> own;
  for (size_t i = 0; i < inputs.size(); ++i) {
    own.push_back(i + 1 < arguments.size() ? as_argument(inputs[i], arguments[i + 1].type()) : inputs[i].deepcopy());
  }
  for (size_t i = own.size() + 1; i < arguments.size() && arguments[i].default_value(); ++i) {
    own.push_back(arguments[i].default_value()->deepcopy());
  }
  return own;
}

}  // namespace bnfold
