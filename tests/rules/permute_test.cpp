#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class PermuteRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model through(const std::string& expression, const std::string& behind = "") {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", 5);
    return model.forward(fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias)\ny = {}\nreturn {}{}", expression,
                                     batch_norm("norm", "y"), behind));
  }

  const at::Tensor x = at::randn({4, 5, 3}, at::kDouble);
};

TEST_F(PermuteRule, LetsTheAffinePassTranspose) {
  expect_folded(through("y.transpose(1, 2)").module, {x}, "norm", "linear", with_rank(3));
}

TEST_F(PermuteRule, LetsTheAffinePassNegativeDimensions) {
  expect_folded(through("y.transpose(-1, -2)").module, {x}, "norm", "linear", with_rank(3));
}

TEST_F(PermuteRule, LetsTheAffinePassPermute) {
  expect_folded(through("y.permute(0, 2, 1)").module, {x}, "norm", "linear");
}

TEST_F(PermuteRule, KeepsTheMemoryOrderThatTheNormGave) {
  expect_folded(through("y.permute(0, 2, 1)", ".view(-1)").module, {x}, "norm", "linear");
}

TEST_F(PermuteRule, KeepsChannelsLastAsTheNormDid) {
  Model model = through("y.permute(0, 3, 1, 2)", ".permute(0, 2, 3, 1).view(-1)");
  const FoldResult result = expect_folded(model.module, {at::randn({2, 4, 3, 3}, at::kDouble)}, "norm", "linear");
  EXPECT_EQ(count_nodes(result.module, "aten::contiguous"), 0);
}

TEST_F(PermuteRule, ComposesTwoPermutations) {
  Model model = through("y.transpose(1, 3).transpose(2, 3)", ".permute(0, 2, 3, 1).view(-1)");
  const FoldResult result = expect_folded(model.module, {at::randn({2, 4, 3, 3}, at::kDouble)}, "norm", "linear", with_rank(4));
  EXPECT_EQ(count_nodes(result.module, "aten::contiguous"), 0);
}

TEST_F(PermuteRule, DeclinesWhereTheChannelsEndElsewhere) {
  expect_kept(through("y.permute(1, 0, 2)").module, {at::randn({5, 4, 3}, at::kDouble)}, "norm", Reason::affine_varies_elsewhere);
}

TEST_F(PermuteRule, DeclinesComputedDimensions) {
  expect_kept(through("y.transpose(1, x.dim() - 1)").module, {x}, "norm", Reason::operand_not_constant, "", with_rank(3));
}

TEST_F(PermuteRule, DeclinesDimensionsThatDoNotFitTheRank) {
  expect_kept(through("y.transpose(1, 2)").module, {x}, "norm", Reason::rank_unknown);
}

class PermuteForward : public PermuteRule {
 protected:
  // norm --> expression of y --> linear with 3 features
  static Model before_linear(const std::string& expression, const std::string& input = "x") {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn torch.linear(y, self.linear.weight, self.linear.bias)",
                                     batch_norm("norm", input), expression));
  }

  const at::Tensor channels_second = at::randn({2, 3, 4}, at::kDouble);
};

TEST_F(PermuteForward, LetsTheAffinePassTranspose) {
  expect_folded(before_linear("y.transpose(1, 2)").module, {channels_second}, "norm", "linear", with_rank(3));
}

TEST_F(PermuteForward, LetsTheAffinePassPermute) {
  expect_folded(before_linear("y.permute(2, 0, 1)").module, {channels_second}, "norm", "linear");
}

TEST_F(PermuteForward, DeclinesWhereTheChannelsEndElsewhere) {
  expect_stopped(before_linear("y.permute(1, 2, 0)").module, {at::randn({3, 3, 4}, at::kDouble)}, "norm", "forward",
                 Reason::affine_varies_elsewhere);
}

TEST_F(PermuteForward, DeclinesComputedDimensions) {
  expect_stopped(before_linear("y.transpose(1, x.dim() - 1)").module, {channels_second}, "norm", "forward",
                 Reason::operand_not_constant, "", with_rank(3));
}

TEST_F(PermuteForward, DeclinesAViewOfWhatTheNormMadeDense) {
  const Model model = before_linear("y.view(y.size(0), 3, -1).transpose(1, 2)", "x.transpose(2, 3)");
  expect_stopped(model.module, {at::randn({2, 3, 4, 5}, at::kDouble)}, "norm", "forward", Reason::memory_order_unknown, "view",
                 with_rank(4));
}

TEST_F(PermuteForward, DoesNoHarmToAViewOfWhatTheNormReordered) {
  const Model model = before_linear("y.view(y.size(0), 3, -1).transpose(1, 2)", "torch.tanh(x.transpose(2, 3))");
  expect_unharmed(model.module, {at::randn({2, 3, 4, 5}, at::kDouble)}, with_rank(4));
}

TEST_F(PermuteForward, FoldsBeforeAViewOfWhatWasDense) {
  const Model model = before_linear("y.view(y.size(0), 3, -1).transpose(1, 2)", "torch.avg_pool2d(x, [2, 2])");
  expect_folded(model.module, {at::randn({2, 3, 4, 6}, at::kDouble)}, "norm", "linear", with_rank(4));
}

TEST_F(PermuteForward, TakesNoMatrixForGrantedBehindAPool) {
  const Model model = before_linear("y.view(y.size(0), 3, -1).transpose(1, 2)", "torch.avg_pool2d(x, [2, 2])");
  expect_unharmed(model.module, {at::randn({2, 3, 4, 6}, at::kDouble)});
}

// The channels of linear(x) in front, whatever the rank of x: no check is put into the folded module.
class ChannelsOfLinear : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model transposed(const std::string& dimensions, const std::string& end = "") {
    Model model;
    model.layer("linear", {5, 4}, 5).norm("norm", 5);
    return model.forward(fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias).transpose({})\nreturn {}{}",
                                     dimensions, batch_norm("norm", "y"), end));
  }
};

TEST_F(ChannelsOfLinear, TakeTheAffineForEveryRank) {
  for (const char* dimensions : {"1, -1", "-1, 1"}) {
    for (const char* end : {"", ".view([x.size(0), -1])", ".transpose(1, -1)"}) {
      const Model model = transposed(dimensions, end);
      const FoldResult result = fold(model.module);
      EXPECT_EQ(result.report.folded.size(), 1U);
      for (const at::IntArrayRef sizes : std::vector<std::vector<int64_t>>{{3, 4}, {1, 4}, {2, 6, 4}, {2, 5, 4}, {2, 3, 5, 4}}) {
        expect_same_output(model.module, result.module, {at::randn(sizes, at::kDouble)});
      }
    }
  }
}

TEST_F(ChannelsOfLinear, DeclineWhereTheRankDecides) {
  expect_kept(transposed("1, 2").module, {at::randn({2, 5, 4}, at::kDouble)}, "norm", Reason::rank_unknown, "example inputs");
  expect_kept(transposed("0, -1").module, {at::randn({5, 4}, at::kDouble)}, "norm", Reason::affine_varies_elsewhere);
}

// Sums and products keep the order of what they read, which batch_norm does not.
TEST(WrittenOutNorm, KeepsTheOrderOfAView) {
  at::manual_seed(5);
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).parameter("w", random_scale(4)).parameter("b", at::randn({4}, at::kDouble));
  model.forward(fmt::format("y = {}.permute([0, 2, 3, 1])\ny = y * self.w + self.b\nreturn y.permute([0, 3, 1, 2]).view([-1])",
                            conv("conv", "x")));
  const FoldResult result = expect_unharmed(model.module, {at::randn({2, 3, 6, 6}, at::kDouble)});
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::contiguous"), 0);
}

}  // namespace
}  // namespace bnfold::test
