#include "find_norms.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include "graph_walk.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::string name_of(const jit::Node* node, const ParameterStore& store) {
  for (const char* input : {"weight", "bias", "running_mean", "running_var"}) {
    const jit::Value* value = node->namedInput(input);
    const jit::NodeKind kind = value->node()->kind();
    const bool none = value->type()->kind() == c10::TypeKind::NoneType;
    if (!none && (kind == jit::prim::GetAttr || (kind == jit::prim::Constant && value->hasDebugName())))
      return store.layer(value);
  }
  return fmt::format("{}({})", node->kind().toUnqualString(), node->output(0)->debugName());
}

Decline decline(Reason reason, const jit::Node* node, std::string detail) {
  return {reason, node, std::move(detail)};
}

std::optional<Decline> why_not_in_eval_mode(const jit::Node* node) {
  const auto training = jit::toIValue(node->namedInput("training"));
  const auto no_statistics = [node](const char* input) {
    return node->namedInput(input)->type()->kind() == c10::TypeKind::NoneType;
  };
  if (no_statistics("running_mean") || no_statistics("running_var")) {
    return decline(Reason::norm_without_running_statistics, node, "track_running_stats is off");
  }
  if (!training) return decline(Reason::norm_in_training_mode, node, "whether it trains is decided while the module runs");
  if (training->toBool()) return decline(Reason::norm_in_training_mode, node, "it normalizes with the statistics of each batch");
  return std::nullopt;
}

// [C] each, dense and on one device, or why not.
std::optional<Decline> why_not_vectors(const jit::Node* node, const algebra::NormParameters& norm) {
  if (!norm.mean.defined() || !norm.variance.defined()) {
    return decline(Reason::norm_without_running_statistics, node, "the running statistics are None");
  }
  for (const at::Tensor& tensor : {norm.weight, norm.bias, norm.mean, norm.variance}) {
    if (!tensor.defined()) continue;
    if (!tensor.is_floating_point() || tensor.layout() != at::kStrided || tensor.is_meta()) {
      return decline(Reason::weight_dtype_unsupported, node, fmt::format("a parameter of the norm is {}", tensor.toString()));
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

std::variant<algebra::NormParameters, Decline> read_parameters(const jit::Node* node, const ParameterStore& store) {
  algebra::NormParameters norm;
  const std::vector<std::pair<const char*, at::Tensor*>> tensors = {
      {"weight", &norm.weight}, {"bias", &norm.bias}, {"running_mean", &norm.mean}, {"running_var", &norm.variance}};
  for (const auto& [input, tensor] : tensors) {
    const auto content = store.read(node->namedInput(input));
    if (!content) return decline(Reason::norm_parameters_not_static, node, fmt::format("its {} is computed or changed", input));
    *tensor = *content;
  }
  const auto epsilon = jit::toIValue(node->namedInput("eps"));
  if (!epsilon) return decline(Reason::norm_parameters_not_static, node, "its eps is computed while the module runs");
  norm.epsilon = epsilon->toDouble();
  if (const auto reason = why_not_vectors(node, norm)) return *reason;
  return norm;
}

Norm read_norm(jit::Node* node, const ParameterStore& store) {
  Norm norm{node, name_of(node, store), Decline{}, at::kFloat};
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
  const algebra::Affine affine = algebra::of_norm(tensors);
  if (algebra::is_finite(affine)) {
    norm.content = affine;
  } else {
    norm.content =
        decline(Reason::norm_statistics_not_finite, node, "a statistic is NaN or infinite, or a variance plus eps not positive");
  }
  return norm;
}

}  // namespace

std::vector<Norm> find_norms(const jit::Graph& graph, const ParameterStore& store) {
  std::vector<Norm> norms;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
    if (node->kind() == jit::aten::batch_norm) norms.push_back(read_norm(node, store));
  });
  return norms;
}

}  // namespace bnfold
