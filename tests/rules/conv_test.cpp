// The convolution rule, in every spelling of the operator.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

struct ConvCase {
  std::string name;
  std::vector<int64_t> weight;
  int64_t channels;
  std::vector<int64_t> input;
  std::string call;  // with {w} and {b} for weight and bias
};

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what)) text.replace(at, what.size(), with);
  return text;
}

class ConvRule : public ::testing::TestWithParam<ConvCase> {
 protected:
  void SetUp() override { at::manual_seed(3); }

  static Model conv_then_norm(const ConvCase& conv, bool with_bias) {
    Model model;
    model.layer("conv", conv.weight, with_bias ? conv.channels : 0).norm("norm", conv.channels);
    const std::string call =
        replaced(replaced(conv.call, "{w}", "self.conv.weight"), "{b}", with_bias ? "self.conv.bias" : "None");
    return model.forward(fmt::format("y = {}\nreturn {}", call, batch_norm("norm", "y")));
  }
};

TEST_P(ConvRule, AbsorbsTheNormBehindIt) {
  const at::Tensor x = at::randn(GetParam().input, at::kDouble);
  const FoldResult result = expect_folded(conv_then_norm(GetParam(), true).module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_P(ConvRule, AbsorbsTheNormBehindItWithoutABias) {
  const at::Tensor x = at::randn(GetParam().input, at::kDouble);
  const FoldResult result = expect_folded(conv_then_norm(GetParam(), false).module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

INSTANTIATE_TEST_SUITE_P(
    Spellings, ConvRule,
    ::testing::Values(
        ConvCase{"conv1d", {4, 3, 3}, 4, {2, 3, 9}, "torch.conv1d(x, {w}, {b}, [2], [1], [1], 1)"},
        ConvCase{"conv2d", {6, 2, 3, 3}, 6, {2, 4, 8, 8}, "torch.conv2d(x, {w}, {b}, [1, 2], [1, 0], [2, 1], 2)"},
        ConvCase{"conv3d", {4, 2, 2, 2, 2}, 4, {2, 2, 4, 4, 4}, "torch.conv3d(x, {w}, {b}, [1, 1, 1], [0, 0, 0], [1, 1, 1], 1)"},
        ConvCase{"depthwise", {4, 1, 3, 3}, 4, {2, 4, 6, 6}, "torch.conv2d(x, {w}, {b}, [1, 1], [1, 1], [1, 1], 4)"},
        ConvCase{"string_padding", {4, 3, 3, 3}, 4, {2, 3, 6, 6}, "torch.conv2d(x, {w}, {b}, [1, 1], 'same', [1, 1], 1)"},
        ConvCase{"convolution",
                 {4, 3, 3, 3},
                 4,
                 {2, 3, 6, 6},
                 "torch.convolution(x, {w}, {b}, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)"},
        ConvCase{"traced",
                 {4, 3, 3, 3},
                 4,
                 {2, 3, 6, 6},
                 "torch._convolution(x, {w}, {b}, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, True)"},
        ConvCase{"traced_transposed",
                 {4, 3, 3, 3},
                 6,
                 {2, 4, 5, 5},
                 "torch._convolution(x, {w}, {b}, [2, 2], [1, 1], [1, 1], True, [1, 1], 2, False, False, True, True)"},
        ConvCase{"conv_transpose1d", {3, 4, 3}, 4, {2, 3, 7}, "torch.conv_transpose1d(x, {w}, {b}, [2], [1], [1], 1, [1])"},
        ConvCase{"conv_transpose2d",
                 {4, 3, 3, 3},
                 6,
                 {2, 4, 5, 5},
                 "torch.conv_transpose2d(x, {w}, {b}, [2, 2], [1, 1], [1, 1], 2, [2, 1])"},
        ConvCase{"conv_transpose3d",
                 {2, 3, 2, 2, 2},
                 3,
                 {2, 2, 3, 3, 3},
                 "torch.conv_transpose3d(x, {w}, {b}, [1, 1, 1], [0, 0, 0], [0, 0, 0], 1, [1, 1, 1])"}),
    [](const auto& test) { return test.param.name; });

struct ConvForwardCase {
  std::string name;
  std::vector<int64_t> weight;
  int64_t channels;  // that leave it
  std::vector<int64_t> input;
  std::string call;  // of y, with {w} and {b}
};

class ConvForward : public ::testing::TestWithParam<ConvForwardCase> {
 protected:
  void SetUp() override { at::manual_seed(3); }

  static Model norm_then_conv(const ConvForwardCase& conv, bool with_bias, bool with_shift = true) {
    Model model;
    model.layer("conv", conv.weight, with_bias ? conv.channels : 0).norm("norm", conv.input.at(1));
    for (const char* name : {"bias", "running_mean"}) {
      if (!with_shift) model.module.attr("norm").toModule().attr(name).toTensor().zero_();
    }
    const std::string call =
        replaced(replaced(conv.call, "{w}", "self.conv.weight"), "{b}", with_bias ? "self.conv.bias" : "None");
    return model.forward(fmt::format("y = {}\nreturn {}", batch_norm("norm", "x"), call));
  }

  static at::Tensor input() { return at::randn(GetParam().input, at::kDouble); }
};

using ConvWithoutPadding = ConvForward;
using ConvWithPadding = ConvForward;

TEST_P(ConvWithoutPadding, AbsorbsTheNormBeforeIt) {
  const FoldResult result = expect_folded(norm_then_conv(GetParam(), true).module, {input()}, "norm", "conv");
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_P(ConvWithoutPadding, AbsorbsTheNormBeforeItWithoutABias) {
  const FoldResult result = expect_folded(norm_then_conv(GetParam(), false).module, {input()}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_P(ConvWithPadding, AbsorbsAScaleBeforeIt) {
  const FoldResult result = expect_folded(norm_then_conv(GetParam(), false, false).module, {input()}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), std::vector<std::string>{"conv.weight"});
}

TEST_P(ConvWithPadding, DeclinesAShiftBeforeIt) {
  expect_stopped(norm_then_conv(GetParam(), true).module, {input()}, "norm", "forward", Reason::shift_at_padding, "border");
}

INSTANTIATE_TEST_SUITE_P(
    Spellings, ConvWithoutPadding,
    ::testing::Values(
        ConvForwardCase{"conv1d", {4, 3, 3}, 4, {2, 3, 9}, "torch.conv1d(y, {w}, {b}, [2], [0], [1], 1)"},
        ConvForwardCase{"groups", {6, 2, 3, 3}, 6, {2, 4, 8, 8}, "torch.conv2d(y, {w}, {b}, [1, 2], [0, 0], [2, 1], 2)"},
        ConvForwardCase{"depthwise", {8, 1, 3, 3}, 8, {2, 4, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], [0, 0], [1, 1], 4)"},
        ConvForwardCase{
            "conv3d", {4, 3, 2, 2, 2}, 4, {2, 3, 4, 4, 4}, "torch.conv3d(y, {w}, {b}, [1, 1, 1], [0, 0, 0], [1, 1, 1], 1)"},
        ConvForwardCase{"valid", {4, 3, 3, 3}, 4, {2, 3, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], 'valid', [1, 1], 1)"},
        ConvForwardCase{"pointwise_same", {4, 3, 1, 1}, 4, {2, 3, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], 'same', [1, 1], 1)"},
        ConvForwardCase{"convolution",
                        {4, 3, 3, 3},
                        4,
                        {2, 3, 6, 6},
                        "torch.convolution(y, {w}, {b}, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)"},
        ConvForwardCase{"traced",
                        {4, 3, 3, 3},
                        4,
                        {2, 3, 6, 6},
                        "torch._convolution(y, {w}, {b}, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True, True)"},
        ConvForwardCase{"pointwise_transposed",
                        {4, 3, 1, 1},
                        6,
                        {2, 4, 5, 5},
                        "torch.conv_transpose2d(y, {w}, {b}, [1, 1], [0, 0], [0, 0], 2, [1, 1])"}),
    [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Spellings, ConvWithPadding,
    ::testing::Values(
        ConvForwardCase{"zero", {4, 3, 3, 3}, 4, {2, 3, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], [1, 1], [1, 1], 1)"},
        ConvForwardCase{"one_side", {6, 2, 3, 3}, 6, {2, 4, 6, 6}, "torch.conv2d(y, {w}, {b}, [2, 2], [0, 1], [1, 1], 2)"},
        ConvForwardCase{"pointwise", {4, 3, 1, 1}, 4, {2, 3, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], [1, 1], [1, 1], 1)"},
        ConvForwardCase{"same", {4, 3, 3, 3}, 4, {2, 3, 6, 6}, "torch.conv2d(y, {w}, {b}, [1, 1], 'same', [1, 1], 1)"},
        ConvForwardCase{"transposed",
                        {4, 3, 3, 3},
                        6,
                        {2, 4, 5, 5},
                        "torch.conv_transpose2d(y, {w}, {b}, [2, 2], [1, 1], [1, 1], 2, [2, 1])"},
        ConvForwardCase{"transposed_without_padding",
                        {4, 3, 3, 3},
                        3,
                        {2, 4, 5, 5},
                        "torch.conv_transpose2d(y, {w}, {b}, [1, 1], [0, 0], [0, 0], 1, [1, 1])"},
        ConvForwardCase{"transposed_with_stride",
                        {4, 3, 1, 1},
                        3,
                        {2, 4, 5, 5},
                        "torch.conv_transpose2d(y, {w}, {b}, [2, 2], [0, 0], [0, 0], 1, [1, 1])"}),
    [](const auto& test) { return test.param.name; });

class Conv2dRule : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(5);
    x = at::randn({2, 3, 6, 6}, at::kDouble);
  }

  static Model conv_then_norm(const std::string& groups) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
    return model.forward(fmt::format("y = torch.conv2d(x, self.conv.weight, None, [1, 1], [0, 0], [1, 1], {})\nreturn {}", groups,
                                     batch_norm("norm", "y")));
  }

  at::Tensor x;
};

TEST_F(Conv2dRule, DeclinesWhereGroupsAreComputed) {
  expect_kept(conv_then_norm("x.size(0) - 1").module, {x}, "norm", Reason::operand_not_constant);
}

TEST_F(Conv2dRule, ChecksTheRankWhereNothingOrOnlyAnExampleTellsIt) {
  for (const Options& options : {Options(), with_rank(4)}) {
    FoldResult result = expect_folded(conv_then_norm("1").module, {x}, "norm", "conv", options);
    EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 1);
    // 4 channels leave the layer in 4 rows
    EXPECT_THROW(result.module.forward({at::randn({3, 6, 6}, at::kDouble)}), std::exception);
  }
}

// What a trace makes of conv2d takes a batch only.
TEST_F(Conv2dRule, ChecksNothingWhereTheConvolutionDoes) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
  model.forward(
      "y = torch._convolution(x, self.conv.weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True, True)\n"
      "return " +
      batch_norm("norm", "y"));
  FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 0);
  const at::Tensor unbatched = at::randn({3, 6, 6}, at::kDouble);
  EXPECT_THROW(model.module.forward({unbatched}), std::exception);
  EXPECT_THROW(result.module.forward({unbatched}), std::exception);
}

TEST_F(Conv2dRule, DeclinesWithoutABatchDimension) {
  const at::Tensor unbatched = at::randn({3, 6, 6}, at::kDouble);  // 4 channels leave the layer in 4 rows
  expect_kept(conv_then_norm("1").module, {unbatched}, "norm", Reason::input_not_batched, "", with_rank(3));
}

TEST_F(Conv2dRule, AbsorbsTheNormBeforeSeveralConvolutions) {
  Model model;
  model.layer("conv1", {4, 3, 3, 3}).layer("conv2", {4, 3, 3, 3}).norm("norm", 3);
  const std::string call = "torch.conv2d(y, self.{}.weight, None, [1, 1], [0, 0], [1, 1], 1)";
  model.forward(fmt::format("y = {}\nreturn {} + {}", batch_norm("norm", "x"), replaced(call, "{}", "conv1"),
                            replaced(call, "{}", "conv2")));
  const FoldResult result = fold(model.module);
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
  expect_same_output(model.module, result.module, {x});
}

TEST_F(Conv2dRule, DeclinesWhereOneReaderIsNoLayer) {
  Model model;
  model.layer("conv", {3, 3, 1, 1}).norm("norm", 3);
  model.forward(
      fmt::format("y = {}\nreturn torch.conv2d(y, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1) + torch.sigmoid(y)",
                  batch_norm("norm", "x")));
  expect_stopped(model.module, {x}, "norm", "forward", Reason::operator_not_affine, "sigmoid");
}

TEST_F(Conv2dRule, DeclinesANormThatMakesTheWeight) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).norm("norm", 3);
  model.forward(fmt::format("return torch.conv2d(x, {}, None, [1, 1], [0, 0], [1, 1], 1)", batch_norm("norm", "x")));
  expect_stopped(model.module, {x}, "norm", "forward", Reason::weight_not_static, "weight or bias");
}

TEST_F(Conv2dRule, DeclinesANormBeforeAnUnbatchedConvolution) {
  Model model;
  model.layer("conv", {4, 6, 3, 3}).norm("norm", 6);
  model.forward(
      fmt::format("y = {}\nreturn torch.conv2d(y, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1)", batch_norm("norm", "x")));
  expect_stopped(model.module, {at::randn({6, 6, 6}, at::kDouble)}, "norm", "forward", Reason::input_not_batched, "",
                 with_rank(3));
}

}  // namespace
}  // namespace bnfold::test
