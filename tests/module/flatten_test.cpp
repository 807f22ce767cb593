#include "module/flatten.h"

#include <gtest/gtest.h>

#include "graph/graph_walk.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

std::vector<std::string> names(const Program& program) {
  std::vector<std::string> result;
  for (const Program::Method& method : program.methods) result.push_back(method.name);
  std::sort(result.begin(), result.end());
  return result;
}

Model with_helper() {
  Model model;
  model.parameter("weight", at::ones({2}, at::kDouble)).define("def helper(self, x):\n  return x * self.weight\n");
  model.define("def forward(self, x):\n  return self.helper(x)\n").define("def encode(self, x):\n  return x + self.weight\n");
  return model;
}

TEST(Flatten, KeepsTheMethodsThatNoOtherCalls) {
  EXPECT_EQ(names(flatten(with_helper().module, {})), (std::vector<std::string>{"encode", "forward"}));
}

TEST(Flatten, KeepsWhatTheOptionsNameAndForward) {
  Options options;
  options.preserved_attributes = {"helper"};
  EXPECT_EQ(names(flatten(with_helper().module, options)), (std::vector<std::string>{"forward", "helper"}));
}

TEST(Flatten, TakesABranchThatIsDecidedOnceAnotherOneIs) {
  Model model;
  model.module.register_attribute("doubles", c10::BoolType::get(), true);
  model.forward(
      "doubled: Optional[Tensor] = None\nif self.doubles:\n  doubled = x * 2\n"
      "if doubled is not None:\n  return doubled\nreturn x");
  const Program program = flatten(model.module, {});
  EXPECT_EQ(jit::findAllNodes(*program.methods[0].graph, jit::prim::If, true).size(), 0U);
}

TEST(Flatten, TakesABranchThatTheRankOfAConvolutionDecides) {
  Model model;
  model.layer("conv", {3, 3, 1, 1}, 3).forward("y = " + conv("conv", "x") + "\nif y.dim() == 3:\n  return y * 2\nreturn y");
  const Program program = flatten(model.module, {});
  EXPECT_EQ(jit::findAllNodes(*program.methods[0].graph, jit::prim::If, true).size(), 0U);
}

TEST(Flatten, KeepsWhatIsWrittenIntoADropoutThatDoesNotTrain) {
  Model model;
  model.define("def write(self, x):\n  return x.relu_()\n");  // which the compiler would drop itself in forward
  model.forward("y = torch.dropout(x, 0.5, False)\nself.write(y)\nreturn x");
  const Program program = flatten(model.module, {});
  EXPECT_EQ(jit::findAllNodes(*program.methods[0].graph, jit::aten::relu_, true).size(), 1U);
}

TEST(Flatten, LeavesADropoutThatTrains) {
  Model model;
  model.forward("return torch.dropout(x, 0.5, True)");
  const Program program = flatten(model.module, {});
  EXPECT_EQ(jit::findAllNodes(*program.methods[0].graph, jit::aten::dropout, true).size(), 1U);
}

TEST(Flatten, LeavesABranchThatTheInputDecides) {
  Model model;
  model.forward("if bool(x.sum() > 0):\n  return x * 2\nreturn x");
  const Program program = flatten(model.module, {});
  EXPECT_EQ(jit::findAllNodes(*program.methods[0].graph, jit::prim::If, true).size(), 1U);
}

TEST(Flatten, LeavesNoCalls) {
  const Program program = flatten(with_helper().module, {});
  for (const Program::Method& method : program.methods) {
    for_each_node(method.graph->block(), [](const jit::Node* node) { EXPECT_NE(node->kind(), jit::prim::CallMethod); });
  }
}

TEST(Flatten, LeavesTheModuleAsItWas) {
  const Model model = with_helper();
  const std::string before = model.module.get_method("forward").graph()->toString();
  flatten(model.module, {});
  EXPECT_EQ(model.module.get_method("forward").graph()->toString(), before);
}

TEST(Flatten, RefusesAnUnknownName) {
  Options options;
  options.preserved_attributes = {"missing"};
  EXPECT_THROW(flatten(with_helper().module, options), Error);
}

TEST(Flatten, RefusesToPreserveASubmodule) {
  Model model;
  model.parameter("conv.weight", at::ones({2}, at::kDouble)).forward("return x * self.conv.weight");
  Options options;
  options.preserved_attributes = {"conv"};
  EXPECT_THROW(flatten(model.module, options), Error);
}

}  // namespace
}  // namespace bnfold::test
