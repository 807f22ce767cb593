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

TEST_F(MatmulRule, AbsorbsIntoAMatrixThatIsRepeatedForEachElementOfABatch) {
  const std::string statistics =
      ", self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var, False, 0.1, 1e-5, True)";
  const at::Tensor batch = at::randn({4, 7, 3}, at::kDouble);
  const auto behind = [&](const std::string& right, at::IntArrayRef weight) {
    Model model;
    model.layer("linear", weight, 5).norm("norm", 5);
    return model.forward("y = torch.bmm(x, " + right + ")\nreturn torch.batch_norm(y.reshape(-1, 5)" + statistics).module;
  };
  for (const char* right : {"self.linear.weight.t().expand(x.size(0), 3, 5)",
                            "self.linear.weight.t().expand(x.size(0), -1, -1).view(x.size(0), 3, 5)"}) {
    expect_folded(behind(right, {5, 3}), {batch}, "norm", "linear", with_rank(3));
  }
  expect_folded(behind("self.linear.weight.expand(x.size(0), 3, 5)", {3, 5}), {batch}, "norm", "linear", with_rank(3));
  for (const char* other : {"self.linear.weight.t().expand(x.size(0), 5, 3).reshape(x.size(0), 3, 5)",
                            "self.linear.weight[:1].expand(x.size(0), 3, 5)"}) {
    expect_kept(behind(other, {3, 5}), {batch}, "norm", Reason::weight_not_static, "", with_rank(3));
  }
}

TEST_F(MatmulRule, DeclinesAProductOfTwoComputedValues) {
  const Model model = product_then_norm("torch.matmul(x, torch.matmul(x.t(), self.linear.weight))", {4, 5});
  expect_kept(model.module, {x}, "norm", Reason::weight_not_static, "weight");
}

class MatmulForward : public MatmulRule {
 protected:
  static Model norm_then_product(const std::string& product, at::IntArrayRef weight) {
    Model model;
    model.layer("linear", weight, 5).norm("norm", 3);
    return model.forward(fmt::format("y = {}\nreturn {}", batch_norm("norm", "x"), product));
  }
};

TEST_F(MatmulForward, AbsorbsIntoAddmmOfATransposedWeight) {
  expect_folded(norm_then_product("torch.addmm(self.linear.bias, y, self.linear.weight.t())", {5, 3}).module, {x}, "norm",
                "linear");
}

TEST_F(MatmulForward, AbsorbsIntoAddmmOfAnUntransposedWeight) {
  expect_folded(norm_then_product("torch.addmm(self.linear.bias, y, self.linear.weight)", {3, 5}).module, {x}, "norm", "linear");
}

TEST_F(MatmulForward, AddsTheShiftBehindAMatmul) {
  for (const char* product : {"torch.matmul(y, self.linear.weight)", "torch.mm(y, self.linear.weight)"}) {
    const FoldResult result = expect_folded(norm_then_product(product, {3, 5}).module, {x}, "norm", "linear");
    EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "linear.bias"}));
  }
}

TEST_F(MatmulForward, AbsorbsTwiceWhereTheNormIsConcatenatedWithItself) {
  Options options;
  options.input_ranks = {2};
  expect_folded(norm_then_product("torch.matmul(torch.cat([y, y], 1), self.linear.weight)", {6, 5}).module, {x}, "norm", "linear",
                options);
}

// y, the norm of one row, plus what `layer` and linear make of y as rows of their own; then the layer last
Model beside_its_own_layers(const std::string& layer) {
  Model model;
  model.layer("product", {4, 4}).layer("linear", {4, 4}, 4).layer("last", {3, 4}, 3).norm("norm", 4);
  tensor_of(model, "weight").abs_().add_(0.1);
  return model.forward(
      fmt::format("y = {}\ny = y + torch.cat([{}, torch.linear(y, self.linear.weight, self.linear.bias)], 0)\n"
                  "return torch.linear(y, self.last.weight, self.last.bias)",
                  batch_norm("norm", "x"), layer));
}

TEST_F(MatmulForward, LinearTakesAScaleInAndGivesItsInverse) {
  expect_folded(beside_its_own_layers("torch.linear(y, self.product.weight, self.linear.bias)").module,
                {at::randn({1, 4}, at::kDouble)}, "norm", "product, linear, last", with_rank(2));
}

TEST_F(MatmulForward, DeclinesToTakeAScaleInAndGiveItsInverseWhereItsShiftIsAddedBehind) {
  expect_stopped(beside_its_own_layers("torch.mm(y, self.product.weight)").module, {at::randn({1, 4}, at::kDouble)}, "norm",
                 "forward", Reason::value_has_other_readers, "added behind", with_rank(2));
}

TEST_F(MatmulForward, DeclinesANormThatIsTheRightOperand) {
  const Model model = norm_then_product("torch.matmul(self.linear.weight, y)", {5, 4});
  expect_stopped(model.module, {x}, "norm", "forward", Reason::weight_not_static, "left operand");
}

TEST_F(MatmulForward, DeclinesANormThatIsTheBiasOfAddmm) {
  const Model model = norm_then_product("torch.addmm(y, x, self.linear.weight)", {3, 3});
  expect_stopped(model.module, {x}, "norm", "forward", Reason::weight_not_static, "left operand");
}

TEST_F(MatmulForward, DeclinesAProductWithSeveralMatrices) {
  Model model;
  model.parameter("matrices", at::randn({2, 3, 5}, at::kDouble)).norm("norm", 3);
  model.forward("y = " + batch_norm("norm", "x") + "\nreturn torch.matmul(y, self.matrices)");
  expect_stopped(model.module, {x}, "norm", "forward", Reason::weight_not_static, "not a matrix", with_rank(2));
}

}  // namespace
}  // namespace bnfold::test
