#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class SqueezeRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind_conv(const std::string& expression, int64_t channels = 4) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", channels);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), expression, batch_norm("norm", "y")));
  }

  static Model before_linear(const std::string& expression) {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn torch.linear(y, self.linear.weight, self.linear.bias)",
                                     batch_norm("norm", "x"), expression));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
  const std::string pooled = "torch.adaptive_avg_pool2d(y, [1, 1])";
};

TEST_F(SqueezeRule, PassesBackward) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).layer("last", {2, 4, 1}).norm("norm", 4);
  model.forward(fmt::format("y = {}\ny = {}.squeeze(3)\ny = torch.sigmoid({})\nreturn torch.conv1d(y, self.last.weight)",
                            conv("conv", "x"), pooled, batch_norm("norm", "y")));
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(SqueezeRule, DoesNoHarmWhereTheRankBehindItIsNotKnown) {
  expect_unharmed(behind_conv("y.mean([2, 3], True).squeeze(2)").module, {x});
}

TEST_F(SqueezeRule, PassesForward) {
  expect_folded(before_linear(pooled + ".squeeze(3).transpose(1, 2)").module, {x}, "norm", "linear", with_rank(4));
}

TEST_F(SqueezeRule, DeclinesADimensionThatMayBeLonger) {
  const at::Tensor small = at::randn({2, 3, 3, 3}, at::kDouble);
  expect_kept(behind_conv("y.squeeze(3).squeeze(2)").module, {small}, "norm", Reason::sizes_unknown, "another size than 1");
  expect_stopped(before_linear("y.squeeze(2)").module, {at::randn({2, 3, 1}, at::kDouble)}, "norm", "forward",
                 Reason::sizes_unknown, "another size than 1", with_rank(3));
}

TEST_F(SqueezeRule, DeclinesToDropEveryDimensionOfSizeOneWhereTheBatchMayBeOne) {
  expect_kept(behind_conv(pooled + ".squeeze()").module, {x}, "norm", Reason::sizes_unknown, "a batch of one");
  expect_stopped(before_linear(pooled + ".squeeze()").module, {x}, "norm", "forward", Reason::sizes_unknown, "a batch of one",
                 with_rank(4));
}

TEST_F(SqueezeRule, DropsEveryDimensionOfSizeOneWhereAllSizesAreKnown) {
  expect_folded(before_linear("torch.adaptive_avg_pool2d(y, [1, 5]).mean([0], True).squeeze().t()").module, {x}, "norm", "linear",
                with_rank(4));
  expect_folded(behind_conv("torch.adaptive_avg_pool2d(y, [3, 5]).mean([0], True).squeeze().permute([1, 0, 2])").module, {x},
                "norm", "conv", with_rank(4));
}

// permute tells that a dimension is gone, which has size 1 then. Of a batch an example may tell the same, which other runs have not.
TEST_F(SqueezeRule, DropsADimensionThatIsGoneBehindIt) {
  const at::Tensor narrow = at::randn({2, 3, 6, 1}, at::kDouble);
  expect_folded(before_linear("y.squeeze(3).permute([0, 2, 1])").module, {narrow}, "norm", "linear", with_rank(4));
  expect_folded(behind_conv("y.squeeze(3).permute([0, 1, 2])").module, {at::randn({2, 3, 6, 3}, at::kDouble)}, "norm", "conv",
                with_rank(4));
  expect_stopped(before_linear("y.squeeze(0).permute([1, 2, 0])").module, {at::randn({1, 3, 6, 6}, at::kDouble)}, "norm",
                 "forward", Reason::sizes_unknown, "another size than 1", with_rank(4));
}

TEST_F(SqueezeRule, DeclinesADimensionThatIsComputed) {
  expect_kept(behind_conv(pooled + ".squeeze(x.dim() - 1)").module, {x}, "norm", Reason::operand_not_constant, "dimension");
}

TEST_F(SqueezeRule, PassesANewDimensionBackward) {
  expect_folded(behind_conv("y.flatten(2).unsqueeze(-1)").module, {x}, "norm", "conv");
  expect_folded(behind_conv("y.flatten(2).unsqueeze(2)").module, {x}, "norm", "conv");
}

TEST_F(SqueezeRule, PassesANewDimensionForward) {
  expect_folded(before_linear("y.unsqueeze(1)").module, {at::randn({4, 3}, at::kDouble)}, "norm", "linear", with_rank(2));
  expect_folded(before_linear("y.unsqueeze(-1).transpose(1, 2)").module, {at::randn({4, 3}, at::kDouble)}, "norm", "linear",
                with_rank(2));
}

TEST_F(SqueezeRule, DeclinesANewDimensionBesideWhichTheChannelsAreOthers) {
  expect_kept(behind_conv("y.flatten(2).unsqueeze(0)", 2).module, {x}, "norm", Reason::affine_varies_elsewhere);
  expect_stopped(before_linear("y.unsqueeze(-1)").module, {}, "norm", "forward", Reason::affine_varies_elsewhere, "",
                 with_rank(2));
}

TEST_F(SqueezeRule, DeclinesANormOfTheNewDimension) {
  expect_kept(behind_conv("y.flatten(1).unsqueeze(1)", 1).module, {x}, "norm", Reason::channels_differ, "the norm has 1");
}

TEST_F(SqueezeRule, PassesSeveralDimensions) {
  for (const char* squeezed : {".squeeze(3).squeeze(2)", ".squeeze(-1).squeeze(-1)", ".squeeze(2).squeeze(2)"}) {
    expect_folded(behind_conv(pooled + squeezed).module, {x}, "norm", "conv");
    expect_folded(before_linear(pooled + squeezed).module, {x}, "norm", "linear", with_rank(4));
  }
}

TEST_F(SqueezeRule, DeclinesTheSecondOfTwoThatMayBeLonger) {
  const std::string high = "torch.adaptive_avg_pool2d(y, [x.size(0), 1])";
  const at::Tensor one = at::randn({1, 3, 6, 6}, at::kDouble);
  expect_kept(behind_conv(high + ".squeeze(3).squeeze(2)").module, {one}, "norm", Reason::sizes_unknown, "another size than 1");
}

}  // namespace
}  // namespace bnfold::test
