// What a folded module is made for.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace bnfold {

// What runs the folded module in the end, or what converts it for that. Each edit of a fold costs something else there, and what the module
// checks as it runs is lost in most conversions. docs/consumers.md has the table of costs and how it was measured.
enum class Target {
  libtorch,  // LibTorch, and what compiles for it; every norm that can be folded is folded
  onnxruntime,
  openvino,
  ncnn,
  coreml,
  quantization,  // int8: only folds that spread no layer's channels wider
};

const std::vector<Target>& all_targets();

// "onnxruntime"
std::string_view name(Target target);

// The target of this name, nothing where there is none.
std::optional<Target> target_named(std::string_view name);

}  // namespace bnfold
