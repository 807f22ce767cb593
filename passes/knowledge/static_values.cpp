#include "knowledge/static_values.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "graph/list_maker.h"
#include "graph/operators.h"
#include "knowledge/dtypes.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// batch_norm without statistics, which weight standardization may call on a weight
bool standardizes(const jit::Node* node) {
  const auto is_none = [node](const char* input) { return node->namedInput(input)->type()->kind() == c10::TypeKind::NoneType; };
  return node->kind() == jit::aten::batch_norm && is_none("running_mean") && is_none("running_var");
}

bool is_generator(const c10::TypePtr& type) {
  const auto optional = type->cast<c10::OptionalType>();
  return (optional ? optional->getElementType() : type)->kind() == c10::TypeKind::GeneratorType;
}

// What makes other values in each run, or reads memory that nobody wrote.
bool is_arbitrary(const jit::Node* node) {
  const std::string_view name = node->kind().toUnqualString();
  const auto has = [name](const char* part) { return name.find(part) != std::string_view::npos; };
  if (has("rand") || has("dropout") || has("empty") || node->isNondeterministic() || node->inputs().empty()) return true;
  const auto& arguments = node->schema().arguments();
  return std::any_of(arguments.begin(), arguments.end(), [](const c10::Argument& argument) {
    return is_generator(argument.type()) || argument.name() == "train" || argument.name() == "dropout_p";
  });
}

bool is_pure(const jit::Node* node) {
  if (node->kind() == jit::prim::NumToTensor || node->kind() == jit::prim::dtype || node->kind() == jit::prim::device)
    return true;
  if (!node->kind().is_aten() || node->maybeSchema() == nullptr || !node->blocks().empty()) return false;
  if (is_one_of(node, {"batch_norm", "instance_norm"})) return standardizes(node);
  const auto inputs = node->inputs();
  const bool writes =
      std::any_of(inputs.begin(), inputs.end(), [node](const jit::Value* input) { return writes_into(node, input); });
  return !writes && !node->hasSideEffects() && !is_arbitrary(node);
}

// Whether it reads nothing of this operand but its dtype and device.
bool asks_for_kind_alone(const jit::Node* node, size_t place) {
  const bool casts = place == 1 && is_one_of(node, {"to", "type_as"});
  return casts || node->kind() == jit::prim::dtype || node->kind() == jit::prim::device;
}

template <typename Element>
std::optional<c10::IValue> list_of(const std::vector<c10::IValue>& elements) {
  const c10::List<Element> list;
  for (const c10::IValue& element : elements) list.push_back(element.to<Element>());
  return c10::IValue(list);
}

std::optional<c10::IValue> list_of(const std::vector<c10::IValue>& elements, const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
      return list_of<int64_t>(elements);
    case c10::TypeKind::FloatType:
      return list_of<double>(elements);
    case c10::TypeKind::TensorType:
      return list_of<at::Tensor>(elements);
    case c10::TypeKind::OptionalType:  // the indices of weight[places]
      if (*type != *c10::OptionalType::ofTensor()) return std::nullopt;
      return list_of<c10::optional<at::Tensor>>(elements);
    default:
      return std::nullopt;
  }
}

constexpr int most_steps = 96;  // a parametrized weight has a few dozen; what takes more is not worth the time at each question

class Evaluation {
 public:
  explicit Evaluation(const ParameterStore& store) : store_(store) {}

  std::optional<c10::IValue> of(jit::Value* value) {
    const auto found = known_.find(value);
    if (found != known_.end()) return found->second;
    const auto content = read(value);
    known_.emplace(value, content);
    return content;
  }

  jit::Value* leaf = nullptr;  // the first that is trainable, or the first

 private:
  std::optional<c10::IValue> read(jit::Value* value) {
    if (const auto tensor = store_.read(value)) {
      if (!tensor->defined()) return c10::IValue();
      if (leaf == nullptr || (!trainable_ && tensor->requires_grad())) {
        leaf = value;
        trainable_ = tensor->requires_grad();
      }
      return c10::IValue(*tensor);
    }
    if (const auto constant = jit::toIValue(value)) return constant;
    if (--steps_ < 0 || store_.memory().may_be_written(value)) return std::nullopt;
    if (value->type()->kind() == c10::TypeKind::ListType && maker_of_list(value) == nullptr) return std::nullopt;
    jit::Node* node = value->node();
    if (node->kind() == jit::prim::ListUnpack) return element(node->input(), value->offset());
    // The operands first: most values hang on an input of the graph, and that is cheaper to see than what an operator is.
    jit::Stack stack;
    for (size_t place = 0; place < node->inputs().size(); ++place) {
      jit::Value* input = node->input(place);
      auto operand = of(input);
      if (!operand && is_one_of(node, {"view", "reshape"})) operand = sizes_with_one_open(input);
      if (!operand && asks_for_kind_alone(node, place)) operand = of_same_kind(input);
      if (!operand) return std::nullopt;
      stack.push_back(*operand);
    }
    if (node->kind() == jit::prim::ListConstruct) return list_of(stack, node->output()->type()->containedType(0));
    if (!is_pure(node)) return std::nullopt;
    try {
      node->getOperation()(stack);
    } catch (const std::exception&) {
      return std::nullopt;  // the graph itself would fail here
    }
    return stack.at(stack.size() - node->outputs().size() + value->offset());
  }

  // What has the dtype and the device of a value that the run computes, as weight.to(x.dtype) and weight.type_as(x) ask for.
  std::optional<c10::IValue> of_same_kind(const jit::Value* value) const {
    const auto dtype = value->type()->kind() == c10::TypeKind::TensorType ? dtype_of(value, store_) : std::nullopt;
    if (!dtype || !store_.device()) return std::nullopt;
    return c10::IValue(at::empty({0}, at::device(*store_.device()).dtype(*dtype)));
  }

  // The sizes of a view, of which the run computes one: the others tell it, as those of weight.view(1, x.size(1), 1, 1).
  std::optional<c10::IValue> sizes_with_one_open(jit::Value* list) {
    if (!items_of_list(list)) return std::nullopt;
    const c10::List<int64_t> sizes;
    bool is_open = false;
    for (jit::Value* element : list->node()->inputs()) {
      const auto size = of(element);
      if (size && !size->isInt()) return std::nullopt;
      if (is_open && (!size || size->toInt() < 0)) return std::nullopt;
      is_open |= !size || size->toInt() < 0;
      sizes.push_back(size ? size->toInt() : -1);
    }
    return c10::IValue(sizes);
  }

  std::optional<c10::IValue> element(jit::Value* list, size_t place) {
    const auto content = of(list);
    if (!content || !content->isList() || place >= content->toListRef().size()) return std::nullopt;
    return c10::IValue(content->toListRef()[place]);
  }

  const ParameterStore& store_;
  std::unordered_map<const jit::Value*, std::optional<c10::IValue>> known_;
  bool trainable_ = false;
  int steps_ = most_steps;
};

}  // namespace

bool may_be_static(const jit::Value* value) {
  for (int steps = 0; steps < most_steps; ++steps) {
    const jit::Node* node = value->node();
    if (node->kind() == jit::prim::Param) return false;
    if (node->inputs().empty() || node->kind() == jit::prim::GetAttr) return true;
    value = node->input(0);
  }
  return false;  // further than an evaluation goes
}

std::optional<StaticTensor> static_tensor(const ParameterStore& store, jit::Value* value) {
  if (!may_be_static(value)) return std::nullopt;
  Evaluation evaluation(store);
  const auto result = evaluation.of(value);
  if (!result || !result->isTensor() || evaluation.leaf == nullptr) return std::nullopt;
  return StaticTensor{result->toTensor(), evaluation.leaf};
}

}  // namespace bnfold
