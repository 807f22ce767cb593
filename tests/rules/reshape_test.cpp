#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class ReshapeRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind_conv(const std::string& expression, int64_t channels) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", channels);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), expression, batch_norm("norm", "y")));
  }

  static Model before_conv(const std::string& expression, int64_t inputs) {
    Model model;
    model.layer("conv", {4, inputs, 3, 3}, 4).norm("norm", 6);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "torch.max_pool2d(x, [1, 1])"), expression,
                                     conv("conv", "y")));
  }

  const at::Tensor image = at::randn({2, 3, 6, 6}, at::kDouble);
  const at::Tensor six = at::randn({2, 6, 5, 5}, at::kDouble);
  const std::string shuffle = "y.view(y.size(0), 2, 3, y.size(2), y.size(3)).transpose(1, 2).contiguous()";
};

TEST_F(ReshapeRule, KeepsTheChannels) {
  for (const char* view :
       {"y.view(y.size(0), 4, -1)", "y.reshape(y.size(0), y.size(1), y.size(2) * y.size(3))", "y.view(y.size(0), 4, 16)"}) {
    expect_folded(behind_conv(view, 4).module, {image}, "norm", "conv", with_rank(4));
  }
}

TEST_F(ReshapeRule, KnowsTheSizesOfAShape) {
  expect_folded(behind_conv("y.view(y.shape[0], 4, -1)", 4).module, {image}, "norm", "conv", with_rank(4));
}

TEST_F(ReshapeRule, DeclinesAViewOfWhichTheBatchIsNotKnown) {
  expect_kept(behind_conv("y.reshape(-1, 4, 16)", 4).module, {image}, "norm", Reason::sizes_unknown, "matched", with_rank(4));
  expect_kept(behind_conv("y.view(2, 4, -1)", 4).module, {image}, "norm", Reason::sizes_unknown, "matched", with_rank(4));
}

TEST_F(ReshapeRule, DeclinesAViewThatMixesTheChannels) {
  expect_kept(behind_conv("y.view(y.size(0), 2, -1)", 2).module, {image}, "norm", Reason::sizes_unknown, "matched", with_rank(4));
  expect_kept(behind_conv("y.view(y.size(0), 8, -1)", 8).module, {image}, "norm", Reason::sizes_unknown, "matched", with_rank(4));
}

TEST_F(ReshapeRule, DeclinesABatchOfAnotherValue) {
  expect_kept(behind_conv("y.view(y.size(2) - 2, 4, -1)", 4).module, {image}, "norm", Reason::sizes_unknown, "matched",
              with_rank(4));
}

TEST_F(ReshapeRule, JoinsTheChannelsAgain) {
  const Model model = behind_conv("y.view(y.size(0), 2, 2, y.size(2), y.size(3)).reshape(y.size(0), 4, y.size(2), y.size(3))", 4);
  expect_folded(model.module, {image}, "norm", "conv", with_rank(4));
}

TEST_F(ReshapeRule, PassesAShuffleOfTheChannelsBackward) {
  const Model model = behind_conv(
      "y.view(y.size(0), 2, 2, y.size(2), y.size(3)).transpose(1, 2).contiguous().view(y.size(0), 4, y.size(2), y.size(3))", 4);
  expect_folded(model.module, {image}, "norm", "conv", with_rank(4));
}

TEST_F(ReshapeRule, PassesAShuffleOfTheChannelsForward) {
  for (const char* view : {".view(y.size(0), -1, y.size(2), y.size(3))", ".view(y.size(0), 6, y.size(2), y.size(3))",
                           ".flatten(1, 2)", ".reshape_as(y)"}) {
    expect_folded(before_conv(shuffle + view, 6).module, {six}, "norm", "conv", with_rank(4));
  }
}

TEST_F(ReshapeRule, PassesAShuffleWrittenWithTheSizesOfTheInput) {
  const Model model = before_conv(
      "y.view(x.size(0), 3, 2, x.size(2), x.size(3)).transpose(1, 2).reshape(x.size(0), -1, x.size(2), x.size(3))", 6);
  EXPECT_EQ(expect_unharmed(model.module, {six}, with_rank(4)).report.folded.size(), 1U);
}

TEST_F(ReshapeRule, PassesAShuffleWithComputedGroups) {
  const Model model = before_conv(
      "y.view(y.size(0), 2, y.size(1) // 2, y.size(2), y.size(3)).transpose(1, 2).reshape(y.size(0), y.size(1), y.size(2), "
      "y.size(3))",
      6);
  expect_folded(model.module, {six}, "norm", "conv", with_rank(4));
}

TEST_F(ReshapeRule, DeclinesAViewOfWhatTheNormMadeDense) {
  Model model;
  model.layer("conv", {4, 6, 3, 3}, 4).norm("norm", 6);
  model.forward(fmt::format("y = {}\ny = {}.flatten(1, 2)\nreturn {}", batch_norm("norm", "x"), shuffle, conv("conv", "y")));
  expect_stopped(model.module, {six}, "norm", "forward", Reason::memory_order_unknown, "view", with_rank(4));
}

TEST_F(ReshapeRule, DeclinesAShuffleOfPixels) {
  const Model model =
      before_conv("y.view(y.size(0), 3, 2, y.size(2), y.size(3)).transpose(2, 3).reshape(y.size(0), 6, y.size(2), -1)", 6);
  expect_stopped(model.module, {six}, "norm", "forward", Reason::sizes_unknown, "matched", with_rank(4));
}

TEST_F(ReshapeRule, FlattensOnePixel) {
  Model model;
  model.layer("linear", {5, 3}, 5).norm("norm", 3);
  model.forward(
      fmt::format("y = torch.adaptive_avg_pool2d({}, [1, 1])\ny = y.reshape(y.size(0), -1)\n"
                  "return torch.linear(y, self.linear.weight, self.linear.bias)",
                  batch_norm("norm", "x")));
  expect_folded(model.module, {image}, "norm", "linear", with_rank(4));
}

TEST_F(ReshapeRule, LeavesANormThatTellsSizesAlone) {
  for (const char* shaped : {"torch.sigmoid(x).view_as(y)", "torch.sigmoid(x).reshape_as(y)"}) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 3);
    model.forward(fmt::format("y = {}\nreturn {}", batch_norm("norm", "x"), conv("conv", shaped)));
    expect_unharmed(model.module, {image}, with_rank(4));
  }
}

}  // namespace
}  // namespace bnfold::test
