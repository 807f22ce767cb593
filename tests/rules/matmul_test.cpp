#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class MatmulRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model product_then_norm(const std::string& product, at::IntArrayRef weight) {
    Model model;
    model.layer("linear", weight, 5).norm("norm", 5);
    return model.forward(fmt::format("y = {}\nreturn {}", product, batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({4, 3}, at::kDouble);
};

TEST_F(MatmulRule, AbsorbsIntoAddmmOfATransposedWeight) {
  const Model model = product_then_norm("torch.addmm(self.linear.bias, x, self.linear.weight.t())", {5, 3});
  const FoldResult result = expect_folded(model.module, {x}, "norm", "linear");
  EXPECT_EQ(result.report.after.parameters, 5 * 3 + 5);
}

TEST_F(MatmulRule, AbsorbsIntoAddmmOfAnUntransposedWeight) {
  expect_folded(product_then_norm("torch.addmm(self.linear.bias, x, self.linear.weight)", {3, 5}).module, {x}, "norm", "linear");
}

TEST_F(MatmulRule, DeclinesAddmmWithAnotherBeta) {
  const Model model = product_then_norm("torch.addmm(self.linear.bias, x, self.linear.weight, beta=0.5)", {3, 5});
  expect_kept(model.module, {x}, "norm", Reason::operand_not_constant, "beta");
}

TEST_F(MatmulRule, AddsTheShiftBehindAMatmul) {
  const Model model = product_then_norm("torch.matmul(x, self.linear.weight.t())", {5, 3});
  const FoldResult result = expect_folded(model.module, {x}, "norm", "linear");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "linear.bias"}));
}

TEST_F(MatmulRule, AbsorbsIntoMatmulAndItsBias) {
  const Model model = product_then_norm("torch.matmul(x, self.linear.weight.t()) + self.linear.bias", {5, 3});
  const FoldResult result = expect_folded(model.module, {x}, "norm", "linear");
  EXPECT_EQ(count_nodes(result.module, "aten::add"), 1);
}

TEST_F(MatmulRule, DeclinesAProductOfTwoComputedValues) {
  const Model model = product_then_norm("torch.matmul(x, torch.matmul(x.t(), self.linear.weight))", {4, 5});
  expect_kept(model.module, {x}, "norm", Reason::weight_not_static, "weight");
}

}  // namespace
}  // namespace bnfold::test
