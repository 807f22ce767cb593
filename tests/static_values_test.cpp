// Norms that are written as arithmetic with constants.
#include "static_values.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class StaticValues : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string seen(const std::string& value) { return value + ".reshape([1, -1, 1, 1])"; }

  // conv --> the statements, which make y of y with the tensors of `norm`
  static Model behind_conv(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\n{}\nreturn y", conv("conv", "x"), statements));
  }

  static Model before_conv(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = x\n{}\nreturn {}", statements, conv("conv", "y")));
  }

  void expect_scale(const Model& model, const Options& options = {}) const {
    const FoldResult result = expect_unharmed(model.module, {x}, options);
    EXPECT_EQ(result.report.scales.size(), 1U);
    EXPECT_EQ(count_nodes(result.module, "aten::mul"), 0);
  }

  const std::string frozen = fmt::format("scale = {} * ({} + 1e-5).rsqrt()\nshift = {} - {} * scale\n", seen("self.norm.weight"),
                                         seen("self.norm.running_var"), seen("self.norm.bias"), seen("self.norm.running_mean"));
  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(StaticValues, FoldsAFrozenBatchNorm) {
  const FoldResult result = expect_unharmed(behind_conv(frozen + "y = y * scale + shift").module, {x});
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].into, "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_F(StaticValues, FoldsAFrozenBatchNormWithItsOperandsTheOtherWayRound) {
  EXPECT_EQ(expect_unharmed(behind_conv(frozen + "y = shift + scale * y").module, {x}).report.folded.size(), 1U);
}

TEST_F(StaticValues, FoldsAFrozenBatchNormForward) {
  Model model;
  model.layer("first", {3, 3, 1, 1}, 3).layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  model.forward(
      fmt::format("y = torch.tanh({})\n{}y = y * scale + shift\nreturn {}", conv("first", "x"), frozen, conv("conv", "y")));
  const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(StaticValues, DeclinesAFrozenBatchNormWhoseStatisticsAreWritten) {
  const Model model = behind_conv("self.norm.running_mean.add_(1.0)\n" + frozen + "y = y * scale + shift");
  EXPECT_EQ(fold(model.module).report.folded.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleThatIsComputed) {
  EXPECT_EQ(expect_unharmed(behind_conv(frozen + "y = y * (scale * x.mean()) + shift").module, {x}).report.folded.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleThatIsRandom) {
  const Model model = behind_conv("y = y * (" + seen("self.norm.weight") + " + torch.rand([1]))");
  EXPECT_EQ(fold(model.module).report.scales.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleForEachPixel) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).parameter("scale", at::randn({4, 4, 4}, at::kDouble));
  model.forward(fmt::format("return {} * self.scale", conv("conv", "x")));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.scales.size(), 0U);
}

TEST_F(StaticValues, FoldsALayerScale) {
  expect_scale(behind_conv("y = y * " + seen("self.norm.weight")));
  expect_scale(behind_conv("y = self.norm.weight.view([4, 1, 1]) * y"));
  expect_scale(behind_conv("y = y * (self.norm.weight.exp() * 0.5).view([4, 1, 1])"));
}

TEST_F(StaticValues, FoldsALayerScaleBehindALinearLayer) {
  Model model;
  model.layer("linear", {5, 3}, 5).parameter("gamma", random_scale(5));
  model.forward("return x + torch.linear(x, self.linear.weight, self.linear.bias)[..., :3] * self.gamma[:3]");
  expect_unharmed(model.module, {at::randn({4, 3}, at::kDouble)}, with_rank(2));
  Model plain;
  plain.layer("linear", {5, 3}, 5).parameter("gamma", random_scale(5));
  plain.forward("return torch.linear(x, self.linear.weight, self.linear.bias) * self.gamma");
  const FoldResult result = expect_unharmed(plain.module, {at::randn({2, 4, 3}, at::kDouble)}, with_rank(3));
  ASSERT_EQ(result.report.scales.size(), 1U);
  EXPECT_EQ(result.report.scales[0].name, "gamma");
  EXPECT_EQ(result.report.scales[0].into, "linear");
}

TEST_F(StaticValues, KeepsNoRecordOfALayerScaleThatStays) {
  const FoldResult result = expect_unharmed(behind_conv("y = torch.sigmoid(y) * " + seen("self.norm.weight")).module, {x});
  EXPECT_EQ(result.report.scales.size() + result.report.kept.size(), 0U);
}

TEST_F(StaticValues, DeclinesALayerScaleWithAnotherReader) {
  const Model model = behind_conv("y = y * " + seen("self.norm.weight") + " + y");
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.scales.size(), 0U);
}

TEST_F(StaticValues, DoesNoHarmWhereTheInputIsWrittenBetweenProductAndSum) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  model.forward(fmt::format("u = torch.tanh(x)\np = u * {}\nu.add_(1.0)\ny = p + {}\nreturn {}, u", seen("self.norm.weight"),
                            seen("self.norm.bias"), conv("conv", "y")));
  expect_unharmed(model.module, {x}, with_rank(4));
}

TEST_F(StaticValues, DoesNoHarmWhereTheScaleBroadcastsItsInput) {
  expect_unharmed(before_conv("y = y * " + seen("self.norm.weight")).module, {x.narrow(1, 0, 1)}, with_rank(4));
}

}  // namespace
}  // namespace bnfold::test
