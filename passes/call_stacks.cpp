#include "call_stacks.h"

#include <unordered_map>

#include "graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

jit::InlinedCallStackPtr rebuilt(jit::InlinedCallStack& stack, jit::Function* function) {
  const auto entries = stack.vec();
  jit::InlinedCallStackPtr copy;
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    const jit::SourceRange& range = std::get<1>(*entry);
    const auto& instance = std::get<2>(*entry);
    copy = copy ? c10::make_intrusive<jit::InlinedCallStack>(copy, function, range, instance)
                : c10::make_intrusive<jit::InlinedCallStack>(function, range, instance);
  }
  return copy;
}

}  // namespace

void own_call_stacks(const jit::Graph& graph, jit::Function* function) {
  std::unordered_map<jit::InlinedCallStack*, jit::InlinedCallStackPtr> copies;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
    const auto stack = node->callstack();
    if (!stack) return;
    jit::InlinedCallStackPtr& copy = copies[stack->get()];
    if (!copy) copy = rebuilt(**stack, function);
    node->setCallStack(copy);
  });
}

}  // namespace bnfold
