#include "freeze.h"

#include <torch/csrc/jit/passes/frozen_conv_folding.h>

#include <set>

#include "bnfold/check.h"
#include "fold_batch_norms.h"
#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "module/compilation_units.h"
#include "module/plain_mode.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

jit::Module frozen(const jit::Module& module, const c10::optional<std::vector<std::string>>& preserved_attrs,
                   bool optimize_numerics) {
  const std::scoped_lock lock(compilation_units());
  return jit::freeze(module, preserved_attrs, optimize_numerics);
}

bool has_one_dtype(const jit::Graph& graph) {
  std::set<at::ScalarType> dtypes;
  for_each_node(graph.block(), [&dtypes](const jit::Node* node) {
    const auto constant = node->kind() == jit::prim::Constant ? constant_tensor(node->output()) : std::nullopt;
    if (constant && (constant->is_floating_point() || constant->is_complex())) dtypes.insert(constant->scalar_type());
  });
  return dtypes.size() <= 1;
}

}  // namespace

void fold_sums_and_products(std::shared_ptr<jit::Graph> graph) {
  const PlainMode plain;
  if (!has_one_dtype(*graph)) return;
  while (jit::FoldFrozenConvAddOrSub(graph) || jit::FoldFrozenConvMulOrDiv(graph)) {
  }
}

FoldResult freeze(const jit::Module& module, Options options, const c10::optional<std::vector<std::string>>& preserved_attrs,
                  bool optimize_numerics) {
  const PlainMode plain;
  FoldResult result{module, {}};
  try {
    options.preserved_attributes = preserved_attrs.value_or(std::vector<std::string>());
    options.preserved_attributes.emplace_back("forward");
    result = fold_before_freezing(module, options);
  } catch (const InputError&) {
    throw;
  } catch (const Error& error) {
    // What torch::jit::freeze can't do either it says itself.
    result.module = frozen(module, preserved_attrs, optimize_numerics);
    TORCH_WARN("bnfold: frozen without folding: ", error.what());
    return result;
  }
  result.module = frozen(result.module, preserved_attrs, /*optimize_numerics=*/false);
  if (optimize_numerics) fold_sums_and_products(result.module.get_method("forward").graph());
  return result;
}

FoldResult freeze(const jit::Module& module, const c10::optional<std::vector<std::string>>& preserved_attrs,
                  bool optimize_numerics) {
  return freeze(module, Options(), preserved_attrs, optimize_numerics);
}

}  // namespace bnfold
