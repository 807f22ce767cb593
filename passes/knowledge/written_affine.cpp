#include "knowledge/written_affine.h"

#include <ATen/ExpandUtils.h>

#include <algorithm>

#include "graph/constants.h"
#include "graph/operators.h"
#include "knowledge/static_values.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A number, or a tensor of numbers that is the same in every run. A trace makes tensors without dimensions of numbers.
struct Constant {
  at::Tensor value;  // in double
  std::optional<StaticTensor> source;

  bool has_dimensions() const { return value.dim() > 0; }
};

std::optional<Constant> constant_of(jit::Value* value, const ParameterStore& store) {
  if (!is_tensor(value)) {
    const auto number = constant_number(value);
    return number ? std::optional<Constant>(Constant{at::scalar_tensor(*number, at::kDouble), std::nullopt}) : std::nullopt;
  }
  auto source = static_tensor(store, value);
  if (!source) return std::nullopt;
  const at::Tensor& tensor = source->tensor;
  const bool is_number = tensor.is_floating_point() || (tensor.dim() == 0 && at::isIntegralType(tensor.scalar_type(), false));
  if (!is_number || tensor.layout() != at::kStrided || tensor.is_meta()) return std::nullopt;
  // A number that a trace made a tensor of is marked as one, and the product of two such is of the default dtype. A copy has no mark.
  return Constant{tensor.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true), std::move(source)};
}

// One operator of the row: factor * x + addend, with x in input `place`.
struct Step {
  jit::Node* node;
  size_t place;
  std::optional<Constant> factor;
  std::optional<Constant> addend;
  algebra::Affine affine;

  std::vector<const Constant*> constants() const {
    std::vector<const Constant*> all;
    for (const auto* constant : {&factor, &addend}) {
      if (*constant && (*constant)->source) all.push_back(&**constant);
    }
    return all;
  }

  bool has_dimensions() const {
    const auto all = constants();
    return std::any_of(all.begin(), all.end(), [](const Constant* one) { return one->has_dimensions(); });
  }
};

at::Tensor number(double value) {
  return at::scalar_tensor(value, at::kDouble);
}

// Which of two inputs is computed, where the other one, which becomes `constant`, is not.
std::optional<size_t> computed_place(jit::Node* node, size_t first, const ParameterStore& store,
                                     std::optional<Constant>& constant) {
  for (const size_t place : {first, first + 1}) {
    jit::Value* other = node->input(2 * first + 1 - place);
    if (!is_tensor(node->input(place))) continue;
    constant = constant_of(other, store);
    if (constant && !static_tensor(store, node->input(place))) return place;
  }
  return std::nullopt;
}

std::optional<Step> sum_step(jit::Node* node, const ParameterStore& store) {
  const bool reversed = is_one_of(node, {"rsub"});
  std::optional<Constant> addend;
  const auto place = computed_place(node, 0, store, addend);
  if (!place) return std::nullopt;
  const auto weight = [&](size_t input) -> std::optional<double> {
    if (!reversed) return weight_in_sum(node, input);
    if (input == 1) return 1.0;
    const auto alpha = constant_number(node->namedInput("alpha"));
    return alpha ? std::optional<double>(-*alpha) : std::nullopt;
  };
  const auto own = weight(*place);
  const auto others = weight(1 - *place);
  if (!own || !others) return std::nullopt;
  const algebra::Affine affine{number(*own), addend->value * *others};
  return Step{node, *place, std::nullopt, std::move(addend), affine};
}

std::optional<Step> product_step(jit::Node* node, const ParameterStore& store) {
  const bool divides = is_one_of(node, {"div"});
  if (divides && !is_left_out(node, "rounding_mode")) return std::nullopt;
  std::optional<Constant> factor;
  const auto place = computed_place(node, 0, store, factor);
  if (!place || (divides && *place == 1)) return std::nullopt;
  const algebra::Affine affine{divides ? factor->value.reciprocal() : factor->value, number(0)};
  return Step{node, *place, std::move(factor), std::nullopt, affine};
}

// addcmul(c, x, d): a product and the sum behind it in one; addcdiv with a quotient.
std::optional<Step> whole_step(jit::Node* node, const ParameterStore& store) {
  const bool divides = is_one_of(node, {"addcdiv"});
  const auto value = constant_number(node->namedInput("value"));
  auto addend = constant_of(node->input(0), store);
  std::optional<Constant> factor;
  const auto place = value && addend ? computed_place(node, 1, store, factor) : std::nullopt;
  if (!place || (divides && *place == 2)) return std::nullopt;
  const algebra::Affine affine{(divides ? factor->value.reciprocal() : factor->value) * *value, addend->value};
  return Step{node, *place, std::move(factor), std::move(addend), affine};
}

std::optional<Step> step_of(jit::Node* node, const ParameterStore& store) {
  if (node->outputs().size() != 1 || !is_tensor(node->output())) return std::nullopt;
  if (is_one_of(node, {"add", "sub", "rsub"})) return sum_step(node, store);
  if (is_one_of(node, {"mul", "div"})) return product_step(node, store);
  if (is_one_of(node, {"addcmul", "addcdiv"})) return whole_step(node, store);
  if (is_one_of(node, {"neg"})) return Step{node, 0, std::nullopt, std::nullopt, {number(-1), number(0)}};
  return std::nullopt;
}

// Whether it multiplies by a static tensor. To divide by a number is nobody's scale.
bool scales(const Step& step) {
  if (!step.factor || !step.factor->source || !step.factor->source->tensor.is_floating_point()) return false;
  return step.factor->value.numel() > 1 || !is_one_of(step.node, {"div", "addcdiv"});
}

// Steps with constants of one dtype and device, that vary along one dimension together.
class Row {
 public:
  std::vector<Step> steps;

  bool add(const Step& step) {
    std::vector<int64_t> sizes = sizes_;
    const at::Tensor* model = model_.defined() ? &model_ : nullptr;
    for (const Constant* constant : step.constants()) {
      if (!constant->has_dimensions()) continue;
      const at::Tensor& tensor = constant->source->tensor;
      if (model == nullptr) model = &tensor;
      if (tensor.scalar_type() != model->scalar_type() || tensor.device() != model->device()) return false;
      if (!at::are_expandable(tensor.sizes(), sizes)) return false;
      sizes = at::infer_size(tensor.sizes(), sizes);
    }
    if (std::count_if(sizes.begin(), sizes.end(), [](int64_t size) { return size != 1; }) > 1) return false;
    sizes_ = std::move(sizes);
    if (model != nullptr) model_ = *model;
    steps.push_back(step);
    return true;
  }

  // A tensor with dimensions; undefined where there is none.
  const at::Tensor& model() const { return model_; }

 private:
  std::vector<int64_t> sizes_;
  at::Tensor model_;
};

// The step that makes what `step` reads, for it alone.
std::optional<Step> step_before(const Step& step, const ParameterStore& store) {
  jit::Value* value = step.node->input(step.place);
  if (value->uses().size() != 1 || value->node()->owningBlock() != step.node->owningBlock()) return std::nullopt;
  return step_of(value->node(), store);
}

std::optional<Step> step_behind(const Step& step, const ParameterStore& store) {
  const auto& uses = step.node->output()->uses();
  if (uses.size() != 1 || uses[0].user->owningBlock() != step.node->owningBlock()) return std::nullopt;
  auto next = step_of(uses[0].user, store);
  return next && next->place == uses[0].offset ? next : std::nullopt;
}

// The row that `product` is in: the steps around it from the first one on, with a new row where one does not go with those before.
Row row_of(const Step& product, const ParameterStore& store) {
  std::vector<Step> steps = {product};
  while (auto before = step_before(steps.front(), store)) steps.insert(steps.begin(), *before);
  Row row;
  bool reached = false;
  std::optional<Step> step = steps.front();
  for (size_t i = 1; step; ++i) {
    if (!row.add(*step)) {
      if (reached) break;
      row = Row();
      if (!row.add(*step)) return row;
    }
    reached |= step->node == product.node;
    step = i < steps.size() ? std::optional<Step>(steps[i]) : step_behind(*step, store);
  }
  return row;
}

}  // namespace

bool may_scale(const jit::Node* node) {
  return is_one_of(node, {"mul", "div", "addcmul", "addcdiv"}) && node->outputs().size() == 1 && is_tensor(node->output());
}

std::optional<WrittenAffine> read_written_affine(jit::Node* product, const ParameterStore& store) {
  const auto own = may_scale(product) ? step_of(product, store) : std::nullopt;
  if (!own || !scales(*own)) return std::nullopt;
  Row row = row_of(*own, store);
  std::vector<Step>& steps = row.steps;
  const auto first = std::find_if(steps.begin(), steps.end(), scales);
  if (first == steps.end() || first->node != product) return std::nullopt;
  // Numbers alone, before and behind, are no part of it.
  const auto matters = [](const Step& step) { return step.has_dimensions() || scales(step); };
  const auto begin = std::find_if(steps.begin(), steps.end(), matters);
  const auto end = std::find_if(steps.rbegin(), steps.rend(), matters).base();

  const Step* last = nullptr;
  bool scales_channels = false;
  bool adds = false;
  std::vector<jit::Node*> nodes;
  algebra::Affine affine = begin->affine;
  for (auto step = begin; step != end; ++step) {
    if (step != begin) affine = algebra::composed(affine, step->affine);
    if (scales(*step)) last = &*step;
    scales_channels |= step->factor && step->factor->value.numel() > 1;
    adds |= step->addend && step->addend->source && step->addend->has_dimensions();
    nodes.push_back(step->node);
  }
  const at::Tensor& model = row.model().defined() ? row.model() : own->factor->source->tensor;
  const std::vector<at::Tensor> both = at::broadcast_tensors({affine.scale.to(model.device()), affine.shift.to(model.device())});
  const bool standardizes = nodes.size() == 2 && begin->addend && !begin->factor;
  return WrittenAffine{nodes, begin->place, last->factor->source->leaf, {both[0], both[1]}, model.scalar_type(), scales_channels,
                       adds,  standardizes};
}

}  // namespace bnfold
