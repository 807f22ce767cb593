#include "onednn/region.h"

#include <algorithm>
#include <unordered_set>

#include "graph/constants.h"
#include "graph/operators.h"
#include "onednn/lower.h"
#include "onednn/steps.h"

namespace bnfold::onednn {

namespace jit = torch::jit;

namespace {

bool is_weight(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.scalar_type() == at::kFloat &&
         tensor.dim() != 0 && tensor.numel() != 0;
}

bool may_be_constant(const c10::IValue& constant) {
  return constant.isTensor() ? is_weight(constant.toTensor()) : can_be_written(constant);
}

bool only_computes(const jit::Node* node) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  return node->blocks().empty() && !node->hasSideEffects() &&
         (schema == nullptr ? node->kind().is_prim() : !schema->is_mutable());
}

bool has_kernel(const jit::Node* layer) {
  const auto weight = constant_tensor(layer->namedInput("weight"));
  const auto groups = constant_int(layer->namedInput("groups"));
  return weight && groups && is_transposed(layer) == false && onednn::has_kernel(weight->sizes().vec(), *groups);
}

// Whether the argument, where the operator has it, is this constant.
bool is_or_has_none(const jit::Node* node, const char* argument, const c10::IValue& wanted) {
  const auto place = node->schema().argumentIndexWithName(argument);
  if (!place) return true;
  const auto constant = jit::toIValue(node->input(*place));
  return constant && (constant->isNone() ? wanted.isNone() : *constant == wanted);
}

// Arguments for which no primitive computes what the operator does, whatever the sizes are.
bool has_usual_arguments(const jit::Node* node) {
  if (is_one_of(node, {"add"})) return is_or_has_none(node, "alpha", 1);
  if (is_one_of(node, {"mean"})) return is_or_has_none(node, "dtype", c10::IValue());
  return is_or_has_none(node, "ceil_mode", false) && is_or_has_none(node, "divisor_override", c10::IValue());
}

class Growing {
 public:
  explicit Growing(const Memory& memory) : memory_(memory) {}

  Region from(jit::Node* first) {
    Region region;
    for (jit::Node* node = first; node->kind() != jit::prim::Return; node = node->next()) {
      if (may_join(node)) {
        region.push_back(node);
        inside_.insert(node->output());
      } else if (!is_list_of_parts(node)) {
        if (!only_computes(node)) break;
        if (is_behind(node)) behind_.insert(node->outputs().begin(), node->outputs().end());
      }
    }
    return region;
  }

 private:
  bool may_join(jit::Node* node) const {
    return can_be_lowered(node) && (is_layer(node) ? has_kernel(node) : has_usual_arguments(node)) &&
           !memory_.may_be_written(node->output()) &&
           all_of_inputs(node, [this](const jit::Value* input) { return may_be_argument(input); });
  }

  bool may_be_argument(const jit::Value* value) const {
    if (inside_.count(value) != 0) return true;
    if (behind_.count(value) != 0) return false;
    if (is_list_of_parts(value->node())) {
      return all_of_inputs(value->node(), [this](const jit::Value* part) {
        return part->node()->kind() != jit::prim::Constant && may_be_argument(part);
      });
    }
    if (const auto constant = jit::toIValue(value)) return may_be_constant(*constant);
    return is_tensor(value) && !memory_.may_be_written(value);
  }

  bool is_behind(const jit::Node* node) const {
    return !all_of_inputs(node, [this](const jit::Value* input) {
      if (is_list_of_parts(input->node())) return !is_behind(input->node());
      return inside_.count(input) == 0 && behind_.count(input) == 0;
    });
  }

  template <typename Holds>
  static bool all_of_inputs(const jit::Node* node, const Holds& holds) {
    return std::all_of(node->inputs().begin(), node->inputs().end(), holds);
  }

  const Memory& memory_;
  std::unordered_set<const jit::Value*> inside_;  // what the region makes
  std::unordered_set<const jit::Value*> behind_;  // what others make of that
};

}  // namespace

bool is_layer(const jit::Node* node) {
  return is_convolution(node) && can_be_lowered(node);
}

bool is_list_of_parts(const jit::Node* node) {
  const jit::Node* reader = node->kind() == jit::prim::ListConstruct ? only_concatenation(node) : nullptr;
  return reader != nullptr && reader->kind() == jit::aten::cat;
}

Region region_from(jit::Node* first, const Memory& memory) {
  return Growing(memory).from(first);
}

}  // namespace bnfold::onednn
