// Checks of ranks and sizes that the module made, where what is known decides them.
#include "plan/leftover_checks.h"

#include <gtest/gtest.h>

#include <string>

#include "bnfold/bnfold.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class LeftoverChecks : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(41); }

  static std::string demand(const std::string& condition) { return "assert " + condition + "\n"; }

  // u = conv(x), v = last(tanh(u)) with a norm behind it; what is asked of them stands in front of each
  static Model layers(const std::string& of_u, const std::string& of_v) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).layer("last", {5, 4, 1, 1}, 5).norm("norm", 5);
    return model.forward("u = " + conv("conv", "x") + "\n" + of_u + "v = " + conv("last", "torch.tanh(u)") + "\n" + of_v +
                         "return " + batch_norm("norm", "v"));
  }

  static int64_t checks(const torch::jit::Module& module) { return count_nodes(module, "prim::RaiseException"); }

  // The one that stays is the fold's own, or that of the input.
  void expect_one_check(const Model& model) const {
    EXPECT_EQ(checks(expect_folded(model.module, {x}, "norm", "last").module), 1);
    EXPECT_EQ(checks(expect_folded(model.module, {x}, "norm", "last", with_rank(4)).module), 1);
    Options options = with_rank(4);
    options.target = Target::coreml;
    EXPECT_EQ(checks(expect_folded(model.module, {x}, "norm", "last", options).module), 0);
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(LeftoverChecks, GoBehindOneThatAsksTheSame) {
  expect_one_check(layers(demand("u.dim() == 4"), demand("v.dim() == 4") + demand("4 == len(v.shape)")));
}

TEST_F(LeftoverChecks, BecomeOneOfTheInput) {
  const FoldResult result =
      expect_folded(layers(demand("u.dim() == 4"), demand("v.dim() == 4")).module, {x}, "norm", "last", with_rank(4));
  ASSERT_EQ(checks(result.module), 1);
  torch::jit::Module module = result.module;
  EXPECT_THROW(module.forward({x[0]}), std::exception);
}

TEST_F(LeftoverChecks, StayWhereOtherRanksPassThem) {
  Model model;
  model.layer("linear", {4, 3}, 4).norm("norm", 4);
  model.forward("y = torch.linear(x, self.linear.weight, self.linear.bias).transpose(1, -1)\n" +
                demand("y.dim() == 2 or y.dim() == 3") + "return " + batch_norm("norm", "y") + ".transpose(1, -1)");
  const at::Tensor sequences = at::randn({2, 5, 3}, at::kDouble);
  const FoldResult result = expect_folded(model.module, {sequences}, "norm", "linear", with_rank(3));
  expect_same_output(model.module, result.module, {sequences.select(0, 0)});
}

TEST_F(LeftoverChecks, AreDecidedThroughAndOrNot) {
  expect_one_check(layers(demand("u.dim() == 3 or not u.dim() != 4"), demand("v.dim() >= 3 and v.dim() <= 4")));
}

TEST_F(LeftoverChecks, AreDecidedByTheWeightsOfLayers) {
  expect_one_check(layers(demand("u.size(1) == 4 and u.shape[1] > 3"), demand("v.shape[-3] == 5")));
  expect_one_check(layers(demand("x.size(1) == 3"), ""));
}

TEST_F(LeftoverChecks, StayWhereWeightsDontTellTheSize) {
  const Model model = layers(demand("u.size(2) == 4"), "");
  EXPECT_EQ(checks(expect_folded(model.module, {x}, "norm", "last", with_rank(4)).module), 2);
}

TEST_F(LeftoverChecks, StayWhereNothingTellsTheRank) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward("y = x.new_zeros([1] * int(x.sum()))\n" + demand("y.dim() != 7") + "return " +
                batch_norm("norm", conv("conv", "x")) + " + y");
  const at::Tensor ones = at::full({1, 3, 4, 4}, 1.0 / 16, at::kDouble);
  Options options = with_rank(4);
  options.target = Target::coreml;
  EXPECT_EQ(checks(expect_folded(model.module, {ones}, "norm", "conv", options).module), 1);
}

TEST_F(LeftoverChecks, StayWhereTheyWouldRaise) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward("y = " + conv("conv", "x") + "\nif x.dim() == 3:\n  " + "assert y.dim() == 4\nreturn " + batch_norm("norm", "y"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv", with_rank(4));
  EXPECT_EQ(checks(result.module), 1);
}

TEST_F(LeftoverChecks, MayHaveBeenAllThatReadANorm) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4).norm("other", 4);
  const std::string dead = "z = " + batch_norm("other", "torch.tanh(y)") + "\n" + demand("z.dim() == 4");
  model.forward("y = " + batch_norm("norm", conv("conv", "x")) + "\n" + dead + "return y.sin()");
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(result.report.kept.size(), 0U);
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
}

TEST_F(LeftoverChecks, LeaveWhatThePassingBranchDoes) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward("y = " + conv("conv", "x") + "\nif y.dim() == 4:\n  z = y * 2\nelse:\n  assert False\nreturn " +
                batch_norm("norm", "z"));
  Options options = with_rank(4);
  options.target = Target::ncnn;
  EXPECT_EQ(checks(expect_unharmed(model.module, {x}, options).module), 0);
}

}  // namespace
}  // namespace bnfold::test
