// The table of rules against the operators that LibTorch has.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/function_schema_parser.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/version.h>

#include <algorithm>
#include <set>
#include <string>

#include "rules/rule.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// A node that calls an overload with inputs of the types that it takes.
jit::Node* call(jit::Graph& graph, const c10::FunctionSchema& schema) {
  std::vector<jit::Value*> inputs;
  for (const c10::Argument& argument : schema.arguments()) inputs.push_back(graph.addInput()->setType(argument.type()));
  jit::Node* node = graph.create(jit::Symbol::fromQualString(schema.name()), inputs, schema.returns().size());
  return graph.insertNode(node);
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

bool is_tensor_or_list_of(const c10::TypePtr& type) {
  return type->kind() == c10::TypeKind::TensorType || type->isSubtypeOf(*c10::ListType::ofTensors());
}

TEST(RuleTable, NamesEachOverloadOnceAndOnlyThoseThatThereAre) {
  std::set<std::string> seen;
  for (const Rule& rule : rule_table()) {
    for (const std::string_view overload : rule.operators) {
      EXPECT_TRUE(seen.insert(std::string(overload)).second) << overload << " stands there twice";
      if (overload.substr(0, 6) == "prim::") continue;  // which is a part of the language
      if (overload == "aten::squeeze.dims" && TORCH_VERSION_MAJOR < 2) continue;
      const c10::OperatorName name = jit::parseName(std::string(overload));
      const auto registered = jit::getAllOperatorsFor(jit::Symbol::fromQualString(name.name));
      EXPECT_TRUE(std::any_of(registered.begin(), registered.end(),
                              [&](const auto& one) { return one->schema().overload_name() == name.overload_name; }))
          << overload << " is not registered";
    }
  }
  EXPECT_GE(seen.size(), 118U);
}

TEST(RuleTable, MatchesNoOverloadThatWritesIntoAnythingButItsFirstInput) {
  size_t matched = 0;
  size_t with_out = 0;
  for (const auto& registered : jit::getAllOperators()) {
    const c10::FunctionSchema& schema = registered->schema();
    const auto& arguments = schema.arguments();
    if (schema.is_vararg() || schema.is_varret() || schema.name() == "aten::__getitem__") continue;
    jit::Graph graph;
    const jit::Node* node = call(graph, schema);
    with_out += std::any_of(arguments.begin(), arguments.end(), [](const auto& one) { return writes(one) && one.kwarg_only(); });
    if (rule_for(node) == nullptr) continue;
    ++matched;
    const c10::FunctionSchema& known = node->schema();
    const bool in_place = known.name().back() == '_';
    for (size_t i = 0; i < known.arguments().size(); ++i) {
      EXPECT_EQ(writes(known.arguments()[i]), in_place && i == 0) << known;
    }
    EXPECT_TRUE(is_tensor_or_list_of(known.arguments().at(0).type())) << known;
    EXPECT_TRUE(is_tensor_or_list_of(known.returns().at(0).type())) << known;
  }
  EXPECT_GE(matched, 118U);
  EXPECT_GE(with_out, 100U);
}

class WrittenWithOut : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // The norm of what an operator makes of u = conv(x).
  static Model behind(const std::string& statements, const std::string& also_returned) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(
        fmt::format("u = {}\n{}\nreturn {}, {}", conv("conv", "x"), statements, batch_norm("norm", "y"), also_returned));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(WrittenWithOut, IsKept) {
  for (const char* call : {"torch.mul(u, 2.0, out=c)", "torch.add(u, 1.0 * x.sum(), out=c)", "torch.neg(u, out=c)"}) {
    const std::string statements = std::string("c = torch.zeros_like(u)\ny = ") + call;
    expect_kept(behind(statements, "x").module, {x}, "norm", Reason::value_changed_in_place, "", with_rank(4));
    expect_kept(behind(statements, "c").module, {x}, "norm", Reason::value_changed_in_place, "", with_rank(4));
  }
}

TEST_F(WrittenWithOut, FoldsWithoutIt) {
  expect_folded(behind("c = torch.zeros_like(u)\ny = torch.mul(u, 2.0)", "c").module, {x}, "norm", "conv");
}

}  // namespace
}  // namespace bnfold::test
