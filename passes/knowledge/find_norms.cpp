#include "knowledge/find_norms.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <array>

#include "algebra/kernel.h"
#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "knowledge/norm_of_branches.h"
#include "knowledge/static_values.h"
#include "knowledge/written_affine.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// A static tensor of the norm, or one that its parameters are computed from; null where it has none.
jit::Value* leaf_of(jit::Node* node, const ParameterStore& store) {
  constexpr std::array<const char*, 4> inputs = {"weight", "bias", "running_mean", "running_var"};
  for (const char* input : inputs) {
    jit::Value* value = node->namedInput(input);
    const jit::NodeKind kind = value->node()->kind();
    const bool none = value->type()->kind() == c10::TypeKind::NoneType;
    if (!none && (kind == jit::prim::GetAttr || kind == jit::prim::Constant)) return value;
  }
  for (const char* input : inputs) {
    if (const auto computed = static_tensor(store, node->namedInput(input))) return computed->leaf;
  }
  return nullptr;
}

std::string name_of(jit::Node* node, const ParameterStore& store) {
  const jit::Value* leaf = leaf_of(node, store);
  const bool named = leaf != nullptr && (leaf->node()->kind() == jit::prim::GetAttr || leaf->hasDebugName());
  return named ? store.layer(leaf) : fmt::format("{}({})", node->kind().toUnqualString(), node->output(0)->debugName());
}

Decline decline(Reason reason, const jit::Node* node, std::string detail) {
  return {reason, node, std::move(detail)};
}

std::optional<Decline> why_not_in_eval_mode(const jit::Node* node) {
  const bool instance = node->kind() == jit::aten::instance_norm;
  const auto training = constant_bool(node->namedInput(instance ? "use_input_stats" : "training"));
  const auto no_statistics = [node](const char* input) {
    return node->namedInput(input)->type()->kind() == c10::TypeKind::NoneType;
  };
  if (no_statistics("running_mean") || no_statistics("running_var")) {
    return decline(Reason::norm_without_running_statistics, node, "track_running_stats is off");
  }
  if (!training) return decline(Reason::norm_in_training_mode, node, "whether it trains is decided while the module runs");
  if (*training) return decline(Reason::norm_in_training_mode, node, "it normalizes with the statistics of each batch");
  return std::nullopt;
}

std::variant<algebra::Affine, Decline> finite_or_declined(const algebra::Affine& affine, const jit::Node* node) {
  if (algebra::is_finite(affine)) return affine;
  return decline(Reason::norm_statistics_not_finite, node, "a statistic is NaN or infinite, or a variance plus eps not positive");
}

// [C] each, dense, of one dtype and on one device, or why not.
std::optional<Decline> why_not_vectors(const jit::Node* node, const algebra::NormParameters& norm) {
  if (!norm.mean.defined() || !norm.variance.defined()) {
    return decline(Reason::norm_without_running_statistics, node, "the running statistics are None");
  }
  for (const at::Tensor& tensor : {norm.weight, norm.bias, norm.mean, norm.variance}) {
    if (!tensor.defined()) continue;
    if (!algebra::is_plain_floating(tensor) || tensor.is_meta()) {
      return decline(Reason::weight_dtype_unsupported, node, fmt::format("a parameter of the norm is {}", tensor.toString()));
    }
    if (tensor.scalar_type() != norm.mean.scalar_type()) {
      return decline(Reason::dtypes_differ, node, "its parameters and statistics have different dtypes");
    }
    if (tensor.dim() != 1 || tensor.size(0) != norm.mean.size(0)) {
      return decline(Reason::norm_channels_disagree, node, "its parameters and statistics differ in length");
    }
    if (tensor.device() != norm.mean.device()) {
      return decline(Reason::devices_differ, node, "its parameters and statistics are on different devices");
    }
  }
  return std::nullopt;
}

std::variant<algebra::NormParameters, Decline> read_parameters(jit::Node* node, const ParameterStore& store) {
  algebra::NormParameters norm;
  const std::vector<std::pair<const char*, at::Tensor*>> tensors = {
      {"weight", &norm.weight}, {"bias", &norm.bias}, {"running_mean", &norm.mean}, {"running_var", &norm.variance}};
  for (const auto& [input, tensor] : tensors) {
    jit::Value* value = node->namedInput(input);
    if (const auto content = store.read(value)) {
      *tensor = *content;
    } else if (const auto computed = static_tensor(store, value)) {
      *tensor = computed->tensor;
    } else {
      return decline(Reason::norm_parameters_not_static, node, fmt::format("its {} is computed or changed", input));
    }
  }
  const auto epsilon = jit::toIValue(node->namedInput("eps"));
  if (!epsilon) return decline(Reason::norm_parameters_not_static, node, "its eps is computed while the module runs");
  norm.epsilon = epsilon->toDouble();
  if (const auto reason = why_not_vectors(node, norm)) return *reason;
  return norm;
}

Norm read_normalization(jit::Node* node, const ParameterStore& store) {
  Norm norm{Norm::batch_norm,        {node},    0, leaf_of(node, store), name_of(node, store), Decline{},
            /*along_channels=*/true, at::kFloat};
  if (const auto reason = why_not_in_eval_mode(node)) {
    norm.content = *reason;
    return norm;
  }
  const auto parameters = read_parameters(node, store);
  if (const auto* reason = std::get_if<Decline>(&parameters)) {
    norm.content = *reason;
    return norm;
  }
  const auto& tensors = std::get<algebra::NormParameters>(parameters);
  norm.dtype = (tensors.weight.defined() ? tensors.weight : tensors.mean).scalar_type();
  norm.content = finite_or_declined(algebra::of_norm(tensors), node);
  norm.spread = Spread{tensors.mean.to(at::kDouble), tensors.variance.to(at::kDouble).sqrt()};
  return norm;
}

// What `value` is a view of.
jit::Node* producer_of(jit::Value* value) {
  jit::Node* node = value->node();
  while (operator_of(node).storage == Storage::view) node = node->input(0)->node();
  return node;
}

bool divides_by_computed(jit::Node* node, const ParameterStore& store) {
  if (!is_one_of(node, {"div", "div_"})) return false;
  jit::Value* divisor = node->input(1);
  return divisor->type()->kind() == c10::TypeKind::TensorType && !static_tensor(store, divisor);
}

// Whether `value` was normalized by statistics of its own, by an operator or written out: as a quotient by what the module computes, or as a
// product with an inverse. Then the affine behind it belongs to a layer norm, a global response norm or their like.
bool is_normalized_by_its_own(jit::Value* value, const ParameterStore& store) {
  jit::Node* node = producer_of(value);
  if (is_one_of(node, {"layer_norm", "group_norm", "rms_norm"})) return true;
  if (is_normalizing(node)) return why_not_in_eval_mode(node).has_value();
  if (divides_by_computed(node, store)) return true;
  if (!is_one_of(node, {"mul", "mul_"})) return false;
  const auto inputs = node->inputs();
  return std::any_of(inputs.begin(), inputs.end(), [&](jit::Value* factor) {
    jit::Node* producer = producer_of(factor);
    return is_one_of(producer, {"rsqrt", "rsqrt_", "reciprocal", "reciprocal_"}) || divides_by_computed(producer, store);
  });
}

// A norm has a scale for each channel, and its statistics are constants. One number for all values scales an output.
bool is_of_a_norm(const WrittenAffine& written, jit::Value* input, const ParameterStore& store) {
  return written.scales_channels && written.adds && !is_normalized_by_its_own(input, store);
}

// Whether `value` comes from the caller, in another dtype, range or order perhaps.
bool is_of_the_caller(jit::Value* value) {
  jit::Node* node = value->node();
  while (is_one_of(node, {"to", "type_as", "div", "mul", "permute", "contiguous"})) node = node->input(0)->node();
  return node->kind() == jit::prim::Param && node->owningBlock() == node->owningGraph()->block();
}

// Layer scales, frozen batch norms and whatever else is written out with constants that vary along one dimension.
std::optional<Norm> read_constant_affine(jit::Node* product, const ParameterStore& store) {
  const auto written = read_written_affine(product, store);
  if (!written) return std::nullopt;
  Norm norm{Norm::scale,
            written->nodes,
            written->input_place,
            written->leaf,
            store.layer(written->leaf),
            Decline{},
            /*along_channels=*/false,
            written->dtype};
  const bool prepares_an_input = written->standardizes && is_of_the_caller(norm.input());
  if (!prepares_an_input && is_of_a_norm(*written, norm.input(), store)) norm.kind = Norm::batch_norm;
  norm.content = finite_or_declined(written->affine, norm.node());
  return norm;
}

bool has_norm_in_branches(const jit::Node* node) {
  if (node->kind() != jit::prim::If || node->outputs().size() != 1) return false;
  return std::any_of(node->blocks().begin(), node->blocks().end(), [](const jit::Block* branch) {
    const auto nodes = const_cast<jit::Block*>(branch)->nodes();
    return std::any_of(nodes.begin(), nodes.end(), may_be_norm);
  });
}

// Whether a branch of `outer` has the node for its norm. Where a rank decides, the branches may have other norms of their own.
bool is_part_of(const Norm& outer, jit::Node* node, const ParameterStore& store) {
  if (!outer.is_made_by(node)) return false;
  if (!outer.never_rank) return true;
  const auto norm = read_norm(node, store);
  return !norm || norm->name == outer.name;
}

}  // namespace

bool Norm::is_made_by(const jit::Node* node) const {
  return std::any_of(nodes.begin(), nodes.end(), [node](const jit::Node* own) { return node == own || is_below(node, own); });
}

bool Norm::allows(std::optional<int64_t> rank) const {
  if (!rank) return !only_rank && !never_rank;
  return (!only_rank || rank == only_rank) && rank != never_rank;
}

algebra::Affine Norm::affine(int64_t rank) const {
  const auto& affine = std::get<algebra::Affine>(content);
  return along_channels ? algebra::along_channels(affine, rank) : algebra::broadcast_to_rank(affine, rank);
}

bool is_normalizing(const jit::Node* node) {
  return node->kind() == jit::aten::batch_norm || node->kind() == jit::aten::instance_norm;
}

bool may_be_norm(const jit::Node* node) {
  return is_normalizing(node) || may_scale(node);
}

std::vector<jit::Node*> find_norms(const jit::Graph& graph) {
  std::vector<jit::Node*> nodes;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
    if (may_be_norm(node) || has_norm_in_branches(node)) nodes.push_back(node);
  });
  return nodes;
}

std::vector<jit::Node*> find_whole_norms(const jit::Graph& graph, const ParameterStore& store) {
  std::vector<jit::Node*> nodes;
  std::optional<Norm> outer;
  for (jit::Node* node : find_norms(graph)) {
    if (outer && is_part_of(*outer, node, store)) continue;
    nodes.push_back(node);
    if (node->kind() == jit::prim::If) outer = read_branches(node, store);
  }
  return nodes;
}

std::optional<Norm> read_norm(jit::Node* node, const ParameterStore& store) {
  if (is_normalizing(node)) {
    if (static_tensor(store, node->output(0))) return std::nullopt;  // it standardizes a weight
    return read_normalization(node, store);
  }
  if (node->kind() == jit::prim::If) return read_branches(node, store);
  return read_constant_affine(node, store);
}

}  // namespace bnfold
