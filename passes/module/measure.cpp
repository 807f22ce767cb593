#include "module/measure.h"

#include <unordered_set>

#include "graph/graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

class TensorCount {
 public:
  // The elements of `tensor`, 0 where it was counted before.
  int64_t add(const at::Tensor& tensor) {
    if (!tensor.defined() || !seen_.insert(tensor.unsafeGetTensorImpl()).second) return 0;
    bytes_ += tensor.numel() * static_cast<int64_t>(tensor.element_size());
    return tensor.numel();
  }

  int64_t bytes() const { return bytes_; }

 private:
  std::unordered_set<const c10::TensorImpl*> seen_;
  int64_t bytes_ = 0;
};

// Slot by slot: the lists that Module::parameters() and buffers() make take longer than some steps of a fold.
void add_attributes(const jit::Module& module, TensorCount& count, Size& size) {
  const auto type = module.type();
  for (size_t slot = 0; slot < type->numAttributes(); ++slot) {
    const c10::IValue& value = module._ivalue()->getSlot(slot);
    if (value.isModule()) add_attributes(value.toModule(), count, size);
    if (!value.isTensor()) continue;
    if (type->is_parameter(slot)) size.parameters += count.add(value.toTensor());
    if (type->is_buffer(slot)) size.buffers += count.add(value.toTensor());
  }
}

}  // namespace

Size measure(const jit::Module& module, const std::vector<Program::Method>& methods) {
  Size size;
  TensorCount count;
  add_attributes(module, count, size);
  const bool frozen = size.parameters == 0;
  for (const Program::Method& method : methods) {
    for_each_node(method.graph->block(), [&](const jit::Node* node) {
      if (node->kind() == jit::prim::Constant) {
        const bool tensor = node->hasAttribute(jit::attr::value) && node->kindOf(jit::attr::value) == jit::AttributeKind::t;
        if (frozen && tensor && node->t(jit::attr::value).is_floating_point())
          size.parameters += count.add(node->t(jit::attr::value));
      } else if (node->kind() != jit::prim::GetAttr) {
        ++size.nodes;
      }
    });
  }
  size.bytes = count.bytes();
  return size;
}

}  // namespace bnfold
