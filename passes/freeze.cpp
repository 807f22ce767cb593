#include "freeze.h"

#include <torch/csrc/jit/passes/frozen_conv_folding.h>

#include "compilation_units.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

jit::Module frozen(const jit::Module& module, const c10::optional<std::vector<std::string>>& preserved_attrs,
                   bool optimize_numerics) {
  const std::scoped_lock lock(compilation_units());
  return jit::freeze(module, preserved_attrs, optimize_numerics);
}

// What torch::jit::freeze does to numbers but for its folds of norms: those that bnfold keeps it takes into a layer all the same, whether
// they train or not, and into a linear layer along whatever dimension.
void fold_sums_and_products(const jit::Module& frozen) {
  auto graph = frozen.get_method("forward").graph();
  while (jit::FoldFrozenConvAddOrSub(graph) | jit::FoldFrozenConvMulOrDiv(graph)) {
  }
}

}  // namespace

FoldResult freeze(const jit::Module& module, Options options, const c10::optional<std::vector<std::string>>& preserved_attrs,
                  bool optimize_numerics) {
  FoldResult result{module, {}};
  try {
    options.preserved_attributes = preserved_attrs.value_or(std::vector<std::string>());
    options.preserved_attributes.emplace_back("forward");
    result = fold(module, options);
  } catch (const Error& error) {
    // What torch::jit::freeze can't do either it says itself.
    result.module = frozen(module, preserved_attrs, optimize_numerics);
    TORCH_WARN("bnfold: frozen without folding: ", error.what());
    return result;
  }
  result.module = frozen(result.module, preserved_attrs, /*optimize_numerics=*/false);
  if (optimize_numerics) fold_sums_and_products(result.module);
  return result;
}

FoldResult freeze(const jit::Module& module, const c10::optional<std::vector<std::string>>& preserved_attrs,
                  bool optimize_numerics) {
  return freeze(module, Options(), preserved_attrs, optimize_numerics);
}

}  // namespace bnfold
