#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class AddRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model sum_then_norm(const std::string& sum, at::IntArrayRef addend = {5}) {
    Model model;
    model.layer("linear", {3, 5}).parameter("shift.bias", at::randn(addend, at::kDouble)).norm("norm", 5);
    return model.forward(fmt::format("y = torch.mm(x, self.linear.weight)\ny = {}\nreturn {}", sum, batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({4, 3}, at::kDouble);
};

TEST_F(AddRule, GivesShiftToTheStaticAddendAndScaleToBoth) {
  const FoldResult result = expect_folded(sum_then_norm("y + self.shift.bias").module, {x}, "norm", "linear");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "shift.bias"}));
}

TEST_F(AddRule, TakesTheInPlaceFormToo) {
  expect_folded(sum_then_norm("y.add_(self.shift.bias)").module, {x}, "norm", "linear");
}

TEST_F(AddRule, DeclinesTheSumOfTwoComputedValues) {
  expect_kept(sum_then_norm("y + torch.relu(self.shift.bias)").module, {x}, "norm", Reason::no_rule_for_operator,
              "two computed values");
}

TEST_F(AddRule, DeclinesAnotherAlpha) {
  expect_kept(sum_then_norm("torch.add(y, self.shift.bias, alpha=2)").module, {x}, "norm", Reason::operand_not_constant, "alpha");
}

TEST_F(AddRule, DeclinesAnAddendOfAnotherShape) {
  expect_kept(sum_then_norm("y + self.shift.bias", {1}).module, {x}, "norm", Reason::channels_differ, "addend");
}

TEST_F(AddRule, DeclinesWhereTheNormWorksAlongAnotherDimension) {
  Model model;
  model.layer("linear", {3, 5}).parameter("shift.bias", at::randn({5}, at::kDouble)).norm("norm", 5);
  model.forward(fmt::format("y = torch.matmul(x, self.linear.weight) + self.shift.bias\nreturn {}", batch_norm("norm", "y")));
  Options options;
  options.input_ranks = {3};
  expect_kept(model.module, {at::randn({2, 5, 3}, at::kDouble)}, "norm", Reason::affine_varies_elsewhere, "last dimension",
              options);
}

}  // namespace
}  // namespace bnfold::test
