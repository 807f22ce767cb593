#include "measure.h"

#include <unordered_set>

#include "graph_walk.h"

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

}  // namespace

Size measure(const jit::Module& module, const std::vector<Program::Method>& methods) {
  Size size;
  TensorCount count;
  for (const at::Tensor& parameter : module.parameters()) size.parameters += count.add(parameter);
  for (const at::Tensor& buffer : module.buffers()) size.buffers += count.add(buffer);
  const bool frozen = size.parameters == 0;
  for (const Program::Method& method : methods) {
    for_each_node(method.graph->block(), [&](const jit::Node* node) {
      if (node->kind() == jit::prim::Constant) {
        const bool tensor = node->hasAttribute(jit::attr::value) && node->kindOf(jit::attr::value) == jit::AttributeKind::t;
        if (frozen && tensor && node->t(jit::attr::value).is_floating_point()) size.parameters += count.add(node->t(jit::attr::value));
      } else if (node->kind() != jit::prim::GetAttr) {
        ++size.nodes;
      }
    });
  }
  size.bytes = count.bytes();
  return size;
}

}  // namespace bnfold
