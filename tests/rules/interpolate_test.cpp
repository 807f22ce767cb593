#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class InterpolateRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& resized) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), resized, batch_norm("norm", "y")));
  }

  static Model before(const std::string& resized) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), resized, conv("conv", "y")));
  }

  const std::vector<std::string> passed = {
      "torch.upsample_nearest2d(y, [9, 7], None, None)",
      "torch.upsample_nearest2d(y, None, [2.0, 1.5])",
      "torch.upsample_bilinear2d(y, [9, 11], False, None, None)",
      "torch.upsample_bilinear2d(y, [3, 3], True, None, None)",
  };
  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(InterpolateRule, LetsTheAffinePassBackward) {
  for (const std::string& resized : passed) expect_folded(behind(resized).module, {x}, "norm", "conv");
}

TEST_F(InterpolateRule, LetsTheAffinePassForward) {
  for (const std::string& resized : passed) expect_folded(before(resized).module, {x}, "norm", "conv");
}

TEST_F(InterpolateRule, DeclinesCubicInterpolation) {
  const std::string cubic = "torch.upsample_bicubic2d(y, [9, 9], False, None, None)";
  expect_kept(behind(cubic).module, {x}, "norm", Reason::no_rule_for_operator, "upsample_bicubic2d");
  expect_stopped(before(cubic).module, {x}, "norm", "forward", Reason::no_rule_for_operator, "upsample_bicubic2d");
}

TEST_F(InterpolateRule, DeclinesChannelsAmongTheResizedDimensions) {
  Model model;
  model.layer("conv", {6, 3, 3, 3}, 6).norm("norm", 6);
  model.forward(fmt::format("y = {}\ny = torch.upsample_nearest2d(y, [6, 6], None, None).permute(0, 2, 1, 3)\nreturn {}",
                            conv("conv", "x"), batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::affine_varies_elsewhere, "resized");
}

TEST_F(InterpolateRule, DeclinesChannelsAmongTheResizedDimensionsForward) {
  Model model;
  model.layer("conv", {4, 6, 3, 3}, 4).norm("norm", 3);
  model.forward(fmt::format(
      "y = {}\ny = torch.upsample_nearest2d(y.permute(0, 2, 1, 3), [6, 6], None, None).permute(0, 2, 1, 3)\nreturn {}",
      batch_norm("norm", "x"), conv("conv", "y")));
  expect_stopped(model.module, {x}, "norm", "forward", Reason::affine_varies_elsewhere, "resized");
}

}  // namespace
}  // namespace bnfold::test
