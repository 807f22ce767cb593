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

// linear, with or without a known rank --> view --> norm
Model behind_linear(const std::string& view, int64_t channels, int64_t outputs = 96) {
  Model model;
  model.layer("linear", {outputs, 5}, outputs).norm("norm", channels);
  return model.forward(
      fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias)\nreturn {}", batch_norm("norm", view)));
}

TEST_F(ReshapeRule, PartsTheOutputsOfALinearLayer) {
  const at::Tensor x = at::randn({3, 5}, at::kDouble);
  for (const char* view : {"y.view(-1, 8, 3, 4)", "y.view(x.size(0), 8, 3, 4)", "y.reshape(x.size(0), -1, 3, 4)",
                           "y.view(-1, 8, 12)", "y.unflatten(1, [8, 3, 4])", "y.unflatten(-1, [-1, 3, 4])"}) {
    expect_folded(behind_linear(view, 8).module, {x}, "norm", "linear", with_rank(2));
  }
  for (const char* view : {"y.view(-1, 8, 3, 4)", "y.reshape(-1, 8, 12)"}) {
    expect_folded(behind_linear(view, 8).module, {x}, "norm", "linear");
    expect_folded(behind_linear(view, 8).module, {at::randn({2, 3, 5}, at::kDouble)}, "norm", "linear");
  }
}

TEST_F(ReshapeRule, JoinsTheRowsOfALinearLayerOfAnyRank) {
  for (const char* view : {"y.reshape([-1, y.size(-1)])", "y.view([-1, 96])"}) {
    for (const at::Tensor& x : {at::randn({3, 7, 5}, at::kDouble), at::randn({3, 5}, at::kDouble)}) {
      expect_folded(behind_linear(view, 96).module, {x}, "norm", "linear");
    }
  }
}

TEST_F(ReshapeRule, DeclinesALinearLayerOfUnknownRankThatOthersReadToo) {
  for (const char* other : {"y.view([96, -1])", "y[3:]", "y.relu()"}) {
    Model model;
    model.layer("linear", {96, 5}, 96).norm("norm", 96);
    model.forward(fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias)\nreturn {}, {}",
                              batch_norm("norm", "y.reshape([-1, y.size(-1)])"), other));
    expect_kept(model.module, {at::randn({4, 5}, at::kDouble)}, "norm", Reason::value_has_other_readers);
  }
}

TEST_F(ReshapeRule, DeclinesAViewThatMixesTheRowsOfALinearLayer) {
  const at::Tensor x = at::randn({12, 5}, at::kDouble);
  for (const char* view : {"y.view(4, 8, 3, 4)", "y.view(-1, 8, 3, 4)", "y.view(-1, 8, 2, 3)"}) {
    expect_kept(behind_linear(view, 8, 32).module, {x}, "norm", Reason::sizes_unknown, "matched");
    const FoldResult known = expect_unharmed(behind_linear(view, 8, 32).module, {x}, with_rank(2));
    EXPECT_EQ(known.report.kept.size(), 1U) << view;
  }
}

// conv of frames [b, t, 3, 6, 6], merged by `merge` --> parts them and merges them again --> norm
Model of_frames(const std::string& merge, const std::string& part, const std::string& again) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  return model.forward(fmt::format("b = x.size(0)\nt = x.size(1)\nx = {}\ny = {}\ny = {}\nreturn {}", merge, conv("conv", "x"),
                                   part, batch_norm("norm", again)));
}

TEST_F(ReshapeRule, MergesAndPartsFrames) {
  const at::Tensor clip = at::randn({2, 3, 3, 6, 6}, at::kDouble);
  for (const char* merge : {"x.flatten(0, 1)", "x.view(b * t, 3, 6, 6)", "x.reshape(b * t, x.size(2), x.size(3), x.size(4))"}) {
    for (const char* part : {"y.view(b, t, 4, 4, 4)", "y.view(b, t, -1, 4, 4)", "y.unflatten(0, [b, t])"}) {
      for (const char* again : {"y.flatten(0, 1)", "y.view(b * t, 4, 4, 4)", "y.reshape(t * b, -1, 4, 4)", "y.transpose(1, 2)"}) {
        expect_folded(of_frames(merge, part, again).module, {clip}, "norm", "conv", with_rank(5));
      }
    }
  }
}

TEST_F(ReshapeRule, DeclinesFramesThatAreMixed) {
  const at::Tensor clip = at::randn({2, 3, 3, 6, 6}, at::kDouble);
  for (const char* part : {"y.view(b, 4, t, 4, 4).transpose(1, 2)", "y.view(b * 2, t * 2, 4, 4, 1)"}) {
    expect_kept(of_frames("x.flatten(0, 1)", part, "y.flatten(0, 1)").module, {clip}, "norm", Reason::sizes_unknown, "matched",
                with_rank(5));
  }
}

TEST_F(ReshapeRule, RepeatsTheAffineAsOftenAsALayerBehindTells) {
  const auto classifier = [](const std::string& view, int64_t features) {
    Model model;
    model.layer("linear", {5, features}, 5).layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
    return model.forward(
        fmt::format("y = torch.sigmoid({})\ny = {}\nreturn torch.linear({}, self.linear.weight, self.linear.bias)",
                    conv("conv", "x"), batch_norm("norm", "y"), view));
  };
  for (const char* view : {"y.view(y.size(0), -1)", "torch.dropout(y.reshape(x.size(0), -1), 0.5, False)", "y.view(len(x), -1)",
                           "y.view(y.size(0), y.size(1) * y.size(2) * y.size(3))", "y.view(-1, y[0].numel())"}) {
    expect_folded(classifier(view, 108).module, {image}, "norm", "linear");
  }
  expect_folded(classifier("y.permute([0, 2, 3, 1]).reshape(y.size(0), -1)", 108).module, {image}, "norm", "linear");
  for (const char* view :
       {"y.reshape(-1, 54)", "y.view(-1, y[0].numel() // 2)", "y.view(2 * y.size(0), y.size(1) * y.size(2) * 3)"}) {
    expect_stopped(classifier(view, 54).module, {image}, "norm", "forward", Reason::sizes_unknown, "matched");
  }
}

TEST_F(ReshapeRule, ReadsTheSizesOfAnotherValue) {
  expect_folded(behind_conv("y.flatten(2).view(y.shape)", 4).module, {image}, "norm", "conv", with_rank(4));
  expect_folded(behind_conv("y.view(y.shape[:2] + [-1]).permute([0, 1, 2])", 4).module, {image}, "norm", "conv", with_rank(4));
  expect_folded(behind_conv("torch.adaptive_avg_pool2d(y, [1, 1]).view(y.shape[:2])", 4).module, {image}, "norm", "conv",
                with_rank(4));
}

TEST_F(ReshapeRule, DeclinesTheSizesOfAPartOfAnotherValue) {
  expect_kept(behind_conv("y.view(y.shape[2:] + [4, -1]).permute([3, 2, 0, 1])", 4).module, {image}, "norm",
              Reason::sizes_unknown, "matched", with_rank(4));
  expect_kept(behind_conv("y.flatten(2).view(y.shape[x.dim() - 4:]).permute([0, 1, 2, 3])", 4).module, {image}, "norm",
              Reason::sizes_unknown, "matched", with_rank(4));
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
