#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class FlattenRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model through(const std::string& expression, int64_t channels = 5) {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", channels);
    return model.forward(fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias)\ny = {}\nreturn {}", expression,
                                     batch_norm("norm", "y")));
  }

  // norm of x --> expression --> linear with `features`
  static Model before(const std::string& expression, int64_t features) {
    Model model;
    model.layer("linear", {5, features}, 5).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn torch.linear(y, self.linear.weight, self.linear.bias)",
                                     batch_norm("norm", "x"), expression));
  }

  const at::Tensor x = at::randn({4, 2, 3}, at::kDouble);
  const at::Tensor image = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(FlattenRule, LetsTheAffinePassFlattenedLeadingDimensions) {
  expect_folded(through("y.flatten(0, 1)").module, {x}, "norm", "linear", with_rank(3));
}

TEST_F(FlattenRule, LetsTheAffinePassDimensionsCountedFromTheBack) {
  expect_folded(through("y.flatten(0, -2)").module, {x}, "norm", "linear", with_rank(3));
}

TEST_F(FlattenRule, DeclinesWhereTheChannelsAreFlattened) {
  expect_kept(through("y.flatten(1, 2)", 10).module, {x}, "norm", Reason::affine_varies_elsewhere, "flattened");
}

TEST_F(FlattenRule, DeclinesDimensionsCountedFromTheBackOfAnUnknownRank) {
  expect_kept(through("y.flatten(0, -2)").module, {x}, "norm", Reason::operand_not_constant, "flattened dimensions");
}

TEST_F(FlattenRule, SplitsTheChannelsOfADimensionThatJoinedKnownSizes) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 36);
  model.forward(
      fmt::format("y = torch.adaptive_avg_pool2d({}, [3, 3]).flatten(1)\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
  expect_kept(model.module, {image}, "norm", Reason::affine_varies_elsewhere);
}

TEST_F(FlattenRule, TakesANormBehindWhatIsOnePixel) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward(
      fmt::format("y = torch.adaptive_avg_pool2d({}, [1, 1]).flatten(1)\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
  expect_folded(model.module, {image}, "norm", "conv");
}

TEST_F(FlattenRule, RepeatsTheAffineForJoinedDimensionsOfKnownSize) {
  expect_folded(before("torch.adaptive_avg_pool2d(y, [2, 3]).flatten(1)", 18).module, {image}, "norm", "linear", with_rank(4));
}

TEST_F(FlattenRule, RepeatsTheAffineAsOftenAsTheLinearLayerTells) {
  for (const char* flat : {"y.flatten(1)", "torch.relu(y).flatten(1)", "torch.dropout(y.flatten(1), 0.5, False)",
                           "y.permute([0, 2, 3, 1]).flatten(1)", "y.transpose(1, 3).flatten(1, -1)"}) {
    expect_folded(before(flat, 108).module, {image}, "norm", "linear", with_rank(4));
  }
}

TEST_F(FlattenRule, DeclinesUnknownSizesOnBothSidesOfTheChannels) {
  expect_stopped(before("y.transpose(1, 2).flatten(1)", 108).module, {image}, "norm", "forward", Reason::sizes_unknown, "joins",
                 with_rank(4));
}

TEST_F(FlattenRule, DeclinesJoinedDimensionsOfUnknownSize) {
  expect_stopped(before("y.flatten(1).repeat([1, 1])", 108).module, {image}, "norm", "forward", Reason::sizes_unknown, "joins",
                 with_rank(4));
}

TEST_F(FlattenRule, JoinsDimensionsBesideTheChannels) {
  expect_folded(before("y.flatten(2).transpose(1, 2)", 3).module, {image}, "norm", "linear", with_rank(4));
}

TEST_F(FlattenRule, DeclinesAheadWhatIsComputed) {
  expect_stopped(before("y.flatten(x.dim() - 3)", 108).module, {image}, "norm", "forward", Reason::operand_not_constant,
                 "flattened");
}

}  // namespace
}  // namespace bnfold::test
