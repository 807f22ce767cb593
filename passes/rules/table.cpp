// The rules, one line a family. To add one: its file, its line here, its test.
#include <unordered_map>

#include "rules/rule.h"

namespace bnfold {

Answer conv_backward(const Site& site);
Answer linear_backward(const Site& site);
Answer matmul_backward(const Site& site);
Answer add_backward(const Site& site);
Answer identity_backward(const Site& site);
Answer permute_backward(const Site& site);
Answer flatten_backward(const Site& site);

const std::vector<Rule>& rule_table() {
  static const std::vector<Rule> rules = {
      {"conv",
       {"aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::conv_transpose1d", "aten::conv_transpose2d",
        "aten::conv_transpose3d", "aten::convolution", "aten::_convolution", "aten::_convolution_mode"},
       conv_backward},
      {"linear", {"aten::linear"}, linear_backward},
      {"matmul", {"aten::addmm", "aten::mm", "aten::matmul"}, matmul_backward},
      {"add", {"aten::add", "aten::add_"}, add_backward},
      {"identity",
       {"aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout",
        "aten::contiguous", "aten::detach", "aten::alias"},
       identity_backward},
      {"permute", {"aten::permute", "aten::transpose", "aten::t"}, permute_backward},
      {"flatten", {"aten::flatten"}, flatten_backward},
  };
  return rules;
}

const Rule* rule_for(const torch::jit::Node* node) {
  static const auto by_operator = [] {
    std::unordered_map<std::string_view, const Rule*> index;
    for (const Rule& rule : rule_table()) {
      for (const std::string_view name : rule.operators) index.emplace(name, &rule);
    }
    return index;
  }();
  const auto found = by_operator.find(node->kind().toQualString());
  return found == by_operator.end() ? nullptr : found->second;
}

}  // namespace bnfold
