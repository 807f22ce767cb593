#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class ReduceRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& reduced, int64_t channels = 4) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", channels);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), reduced, batch_norm("norm", "y")));
  }

  static Model before(const std::string& reduced) {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn torch.linear(y, self.linear.weight, self.linear.bias)",
                                     batch_norm("norm", "x"), reduced));
  }

  const at::Tensor x = at::randn({2, 3, 7, 7}, at::kDouble);
};

TEST_F(ReduceRule, LetsTheAffinePassAMeanBackward) {
  for (const char* mean : {"y.mean([2, 3])", "y.mean([-1, -2])", "y.mean([2, 3], True)", "y.mean(3)", "y.mean([0], True)"}) {
    expect_folded(behind(mean).module, {x}, "norm", "conv");
  }
}

TEST_F(ReduceRule, LetsTheAffinePassAMeanForward) {
  for (const char* mean : {"y.mean([2, 3])", "y.mean([-1, -2])", "y.mean([3]).mean([2])", "y.mean([-1, 2], True).flatten(1)"}) {
    expect_folded(before(mean).module, {x}, "norm", "linear", with_rank(4));
  }
}

TEST_F(ReduceRule, LetsTheScalePassASum) {
  Model back = behind("y.sum([2, 3])");
  expect_folded(without_shift(back).module, {x}, "norm", "conv");
  Model on = before("y.sum([2, 3])");
  expect_folded(without_shift(on).module, {x}, "norm", "linear", with_rank(4));
}

TEST_F(ReduceRule, DividesTheShiftAmongElementsOfKnownNumber) {
  expect_folded(behind("torch.adaptive_avg_pool2d(y, [2, 3]).sum([2, -1])").module, {x}, "norm", "conv");
  expect_folded(before("torch.adaptive_avg_pool2d(y, [2, 3]).sum([2, 3])").module, {x}, "norm", "linear", with_rank(4));
}

TEST_F(ReduceRule, DeclinesAShiftThroughASum) {
  expect_kept(behind("y.sum([2, 3])").module, {x}, "norm", Reason::shift_not_passable, "once for each element");
  expect_stopped(before("y.sum([2, 3])").module, {x}, "norm", "forward", Reason::shift_not_passable, "once for each element",
                 with_rank(4));
}

TEST_F(ReduceRule, DeclinesAMeanOfTheChannels) {
  expect_stopped(before("y.mean([1, 2]).relu()").module, {at::randn({2, 3, 7, 3}, at::kDouble)}, "norm", "forward",
                 Reason::affine_varies_elsewhere, "reduced", with_rank(4));
}

TEST_F(ReduceRule, DeclinesTheMeanBehindWhichTheChannelsAreOthers) {
  expect_kept(behind("y.mean([0])", 5).module, {x}, "norm", Reason::affine_varies_elsewhere);
  expect_kept(behind("y.mean([1])", 5).module, {x}, "norm", Reason::affine_varies_elsewhere);
}

TEST_F(ReduceRule, DeclinesDimensionsThatAreComputed) {
  expect_kept(behind("y.mean([2, x.dim() - 1])").module, {x}, "norm", Reason::operand_not_constant, "reduced dimensions");
}

TEST_F(ReduceRule, DeclinesAMeanInADtypeOfItsOwn) {
  expect_kept(behind("y.mean([2, 3], dtype=7)").module, {x}, "norm", Reason::operand_not_constant, "reduced dimensions");
}

TEST_F(ReduceRule, DeclinesAMeanOfEverything) {
  expect_stopped(before("y + y.mean()").module, {at::randn({4, 3}, at::kDouble)}, "norm", "forward", Reason::operand_not_constant,
                 "reduced dimensions", with_rank(2));
}

}  // namespace
}  // namespace bnfold::test
