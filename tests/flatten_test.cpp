#include "flatten.h"

#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
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

TEST(Flatten, LeavesNoCalls) {
  const Program program = flatten(with_helper().module, {});
  EXPECT_EQ(count_nodes(program.module, "prim::CallMethod"), 0);
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
