// Convolutions of one value whose results are added.
#include "plan/parallel_convs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

// What follows the weight and the bias in a call of conv2d.
std::string arguments(const std::string& stride, const std::string& padding, const std::string& dilation = "[1, 1]",
                      int groups = 1) {
  return fmt::format("{}, {}, {}, {}", stride, padding, dilation, groups);
}

class ParallelConvs : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string call(const std::string& path, const std::string& rest, const std::string& value = "x") {
    return fmt::format("torch.conv2d({0}, self.{1}.weight, self.{1}.bias, {2})", value, path, rest);
  }

  // large [6, 4, ...] of x and small [6, 4, ...] of x, joined by `statements`
  static Model pair(at::IntArrayRef large, const std::string& large_rest, at::IntArrayRef small, const std::string& small_rest,
                    const std::string& statements = "return a + b") {
    Model model;
    model.layer("large", large, large[0]).layer("small", small, small[0]);
    return model.forward(fmt::format("a = {}\nb = {}\n{}", call("large", large_rest), call("small", small_rest), statements));
  }

  static Model three_and_one(const std::string& statements = "return a + b") {
    return pair({6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {6, 4, 1, 1}, arguments("[1, 1]", "[0, 0]"), statements);
  }

  // large and small of y, the sigmoid of x, in the two places of `statements`
  static Model of_a_sigmoid(const std::string& statements) {
    Model model;
    model.layer("large", {6, 4, 3, 3}, 6).layer("small", {6, 4, 1, 1}, 6);
    return model.forward("y = torch.sigmoid(x)\n" + fmt::format(fmt::runtime(statements),
                                                                call("large", arguments("[1, 1]", "[1, 1]"), "y"),
                                                                call("small", arguments("[1, 1]", "[0, 0]"), "y")));
  }

  void expect_merged(const Model& model, const std::string& name = "small", const std::string& into = "large") const {
    const FoldResult result = expect_unharmed(model.module, {x});
    ASSERT_EQ(result.report.merged.size(), 1U);
    EXPECT_EQ(result.report.merged[0].name, name);
    EXPECT_EQ(result.report.merged[0].into, into);
    EXPECT_EQ(count_nodes(result.module, "aten::conv2d"), 1);
    EXPECT_EQ(count_nodes(result.module, "aten::add") + count_nodes(result.module, "aten::sub"), 0);
  }

  void expect_apart(const Model& model) const {
    const FoldResult result = expect_unharmed(model.module, {x});
    EXPECT_TRUE(result.report.merged.empty());
  }

  const at::Tensor x = at::randn({2, 4, 9, 8}, at::kDouble);
};

TEST_F(ParallelConvs, BecomeOne) {
  for (const char* sum :
       {"a + b", "b + a", "a - b", "torch.sub(b, a, alpha=-2.5)", "torch.add(b, a, alpha=3)", "a.add_(b)", "b.sub_(a)"}) {
    expect_merged(three_and_one(fmt::format("return {}", sum)));
  }
}

TEST_F(ParallelConvs, KeepsTwoOfWhichOneIsReadTwice) {
  expect_apart(three_and_one("return a + b, b"));
  expect_apart(three_and_one("return a + b + a"));
}

TEST_F(ParallelConvs, BecomeOneWhereOneNumberCountsForAllDimensions) {
  expect_merged(pair({6, 4, 3, 3}, arguments("[2]", "[1]", "[1]"), {6, 4, 1, 1}, arguments("[2]", "[0]", "[1]")));
}

TEST_F(ParallelConvs, TakesTheParametersOfTheOtherOneAway) {
  const FoldResult result = fold(three_and_one().module);
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"large.weight", "large.bias"}));
}

TEST_F(ParallelConvs, TakesALargeStrideGroupsAndDilation) {
  const auto merged = [this](int groups, const std::string& stride, const std::string& padding, const std::string& dilation) {
    expect_merged(pair({6, 4 / groups, 3, 3}, arguments(stride, padding, dilation, groups), {6, 4 / groups, 1, 1},
                       arguments(stride, "[0, 0]", "[1, 1]", groups)));
  };
  merged(1, "[2, 2]", "[1, 1]", "[1, 1]");
  merged(2, "[1, 3]", "[1, 1]", "[1, 1]");
  merged(1, "[1, 1]", "[2, 1]", "[2, 1]");
}

TEST_F(ParallelConvs, KeepsTwoOfAnotherStride) {
  // Of one row and column, both strides make the same sizes.
  Model model = pair({6, 4, 3, 3}, arguments("[2, 2]", "[1, 1]"), {6, 4, 1, 1}, arguments("[1, 1]", "[0, 0]"));
  const FoldResult result = expect_unharmed(model.module, {at::randn({2, 4, 1, 1}, at::kDouble)});
  EXPECT_TRUE(result.report.merged.empty());
}

TEST_F(ParallelConvs, TakesKernelsOfOneColumnAndOneSize) {
  expect_merged(pair({6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {6, 4, 1, 3}, arguments("[1, 1]", "[0, 1]")));
  expect_merged(pair({6, 4, 5, 1}, arguments("[1, 1]", "[2, 0]"), {6, 4, 3, 1}, arguments("[1, 1]", "[1, 0]")));
  expect_merged(pair({6, 4, 4, 4}, arguments("[1, 1]", "[1, 1]"), {6, 4, 2, 2}, arguments("[1, 1]", "[0, 0]")));
  expect_merged(pair({6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), "return b + a"),
                "large", "small");
}

TEST_F(ParallelConvs, KeepsTwoOfWhichNeitherHoldsTheOther) {
  expect_apart(pair({6, 4, 3, 1}, arguments("[1, 1]", "[1, 0]"), {6, 4, 1, 3}, arguments("[1, 1]", "[0, 1]")));
}

TEST_F(ParallelConvs, KeepsTwoThatHaveNoMiddleInCommon) {
  // Of eight rows, both make two: one with its middle in row 1, the other one in row 0.
  const std::string rest = arguments("[4, 4]", "[1, 1]");
  const Inputs eight_rows = {at::randn({2, 4, 8, 8}, at::kDouble)};
  EXPECT_TRUE(expect_unharmed(pair({6, 4, 5, 5}, rest, {6, 4, 3, 3}, rest).module, eight_rows).report.merged.empty());
  // The middle of two taps lies between those of three.
  expect_apart(
      pair({6, 4, 3, 3}, arguments("[1, 1]", "[2, 2]", "[2, 2]"), {6, 4, 2, 2}, arguments("[1, 1]", "[1, 1]", "[2, 2]")));
}

TEST_F(ParallelConvs, KeepsTwoOfAnotherDilation) {
  expect_apart(pair({6, 4, 5, 5}, arguments("[1, 1]", "[2, 2]"), {6, 4, 3, 3}, arguments("[1, 1]", "[2, 2]", "[2, 2]")));
}

TEST_F(ParallelConvs, TakesASingleTapOfAnyDilation) {
  expect_merged(pair({6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {6, 4, 1, 1}, arguments("[1, 1]", "[0, 0]", "[3, 3]")));
}

TEST_F(ParallelConvs, KeepsTwoOfOtherGroups) {
  expect_apart(pair({4, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {4, 1, 1, 1}, arguments("[1, 1]", "[0, 0]", "[1, 1]", 4)));
}

TEST_F(ParallelConvs, KeepsOneThatBroadcastsItsChannels) {
  expect_apart(pair({6, 4, 3, 3}, arguments("[1, 1]", "[1, 1]"), {1, 4, 1, 1}, arguments("[1, 1]", "[0, 0]")));
}

TEST_F(ParallelConvs, TakesPaddingByName) {
  expect_merged(pair({6, 4, 3, 5}, arguments("[1, 1]", "'same'"), {6, 4, 1, 1}, arguments("[1, 1]", "'valid'")));
}

TEST_F(ParallelConvs, KeepsTwoOfWhichOneIsPaddedMoreAtOneSide) {
  expect_apart(pair({6, 4, 4, 4}, arguments("[1, 1]", "'same'"), {6, 4, 2, 2}, arguments("[1, 1]", "'same'")));
}

TEST_F(ParallelConvs, KeepsTwoOfDifferentValues) {
  Model model;
  model.layer("large", {6, 4, 3, 3}, 6).layer("small", {6, 4, 1, 1}, 6);
  expect_apart(model.forward(fmt::format("return {} + {}", call("large", arguments("[1, 1]", "[1, 1]")),
                                         call("small", arguments("[1, 1]", "[0, 0]"), "torch.sigmoid(x)"))));
}

TEST_F(ParallelConvs, KeepsTwoBetweenWhichTheirValueIsWritten) {
  expect_apart(of_a_sigmoid("a = {}\ny.mul_(2)\nb = {}\nreturn a + b"));
}

TEST_F(ParallelConvs, TakesTwoBehindWhichTheirValueIsWritten) {
  expect_merged(of_a_sigmoid("a = {}\nb = {}\ny.mul_(2)\nreturn a + b"));
}

TEST_F(ParallelConvs, KeepsTwoWhoseWeightIsComputed) {
  Model model;
  model.layer("large", {6, 4, 3, 3}, 6).layer("small", {6, 4, 1, 1}, 6);
  expect_apart(model.forward(fmt::format("return {} + torch.conv2d(x, self.small.weight * x.mean(), self.small.bias)",
                                         call("large", arguments("[1, 1]", "[1, 1]")))));
}

TEST_F(ParallelConvs, KeepsTwoOfWhichOneRunsInABranch) {
  Model model;
  model.layer("large", {6, 4, 3, 3}, 6).layer("small", {6, 4, 1, 1}, 6);
  expect_apart(
      model.forward(fmt::format("a = {}\nb = {}\nif bool(x.sum() > 0):\n  y = a + b\nelse:\n  y = x\nreturn y",
                                call("large", arguments("[1, 1]", "[1, 1]")), call("small", arguments("[1, 1]", "[0, 0]")))));
}

TEST_F(ParallelConvs, LeavesAWeightToTheOtherCallOfItsLayer) {
  Model model;
  model.layer("large", {6, 4, 3, 3}, 6).layer("small", {6, 4, 1, 1}, 6);
  model.forward(fmt::format("a = {}\nb = {}\nreturn a + b, {}", call("large", arguments("[1, 1]", "[1, 1]")),
                            call("small", arguments("[1, 1]", "[0, 0]")), call("large", arguments("[1, 1]", "[1, 1]"), "x * 2")));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.merged.size(), 1U);
}

TEST_F(ParallelConvs, TakesThreeAndTheNormBesideThem) {
  Model model;
  model.layer("large", {4, 4, 3, 3}, 4).layer("small", {4, 4, 1, 1}, 4).norm("after", 4).norm("beside", 4);
  model.forward(fmt::format("return {} + {} + {}", batch_norm("after", call("large", arguments("[1, 1]", "[1, 1]"))),
                            call("small", arguments("[1, 1]", "[0, 0]")), batch_norm("beside", "x")));
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(result.report.folded.size(), 2U);
  EXPECT_EQ(result.report.merged.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::conv2d"), 1);
}

TEST_F(ParallelConvs, TakesOneWithoutABias) {
  for (const bool large_has_bias : {false, true}) {
    Model model;
    model.layer("large", {6, 4, 3, 3}, large_has_bias ? 6 : 0).layer("small", {6, 4, 1, 1}, large_has_bias ? 0 : 6);
    const auto bias = [&](const char* path, bool has) { return has ? fmt::format("self.{}.bias", path) : std::string("None"); };
    model.forward(
        fmt::format("return torch.conv2d(x, self.large.weight, {}, [1, 1], [1, 1]) + torch.conv2d(x, self.small.weight, {})",
                    bias("large", large_has_bias), bias("small", !large_has_bias)));
    expect_merged(model);
  }
}

TEST_F(ParallelConvs, KeepsTwoOfOtherDtypes) {
  Model model = three_and_one();
  model.module.attr("small").toModule().to(at::kFloat);
  EXPECT_TRUE(fold(model.module).report.merged.empty());
}

TEST_F(ParallelConvs, KeepsTwoWhoseWeightsAddUpBeyondTheirRange) {
  const Model model = three_and_one();
  for (const char* path : {"large", "small"}) model.module.attr(path).toModule().attr("weight").toTensor().fill_(1e308);
  EXPECT_TRUE(expect_unharmed(model.module, {x * 1e-3}).report.merged.empty());
}

TEST_F(ParallelConvs, KeepsTwoOfComplexNumbers) {
  Model model;
  model.parameter("large.weight", at::randn({6, 4, 3, 3}, at::kComplexDouble));
  model.parameter("small.weight", at::randn({6, 4, 1, 1}, at::kComplexDouble));
  model.forward("return torch.conv2d(x, self.large.weight, None, [1, 1], [1, 1]) + torch.conv2d(x, self.small.weight)");
  EXPECT_TRUE(fold(model.module).report.merged.empty());
}

}  // namespace
}  // namespace bnfold::test
