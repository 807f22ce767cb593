#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

Model& with_positive_scale(Model& model) {
  tensor_of(model, "weight").abs_();
  return model;
}

class PoolRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& pooled) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), pooled, batch_norm("norm", "y")));
  }

  static Model before(const std::string& pooled) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), pooled, conv("conv", "y")));
  }

  // conv1d --> a pool of three dimensions that are no batch --> norm
  static Model behind_conv1d(const std::string& pooled) {
    Model model;
    model.layer("conv", {3, 2, 1}, 3).norm("norm", 3);
    return model.forward(fmt::format("y = torch.conv1d(x, self.conv.weight, self.conv.bias, [1], [0], [1], 1)\ny = {}\nreturn {}",
                                     pooled, batch_norm("norm", "y")));
  }

  const std::vector<std::string> averages = {
      "torch.avg_pool2d(y, [2, 2], [2, 2], [0, 0], False, True, None)",
      "torch.avg_pool2d(y, [3, 3], [2, 2], [0, 0], True, True, None)",
      "torch.avg_pool2d(y, [3, 3], [2, 2], [1, 1], True, False, None)",
      "torch.adaptive_avg_pool2d(y, [3, 2])",
      "torch.adaptive_avg_pool2d(y, [1, 1])",
  };
  const std::vector<std::string> counting = {
      "torch.avg_pool2d(y, [3, 3], [2, 2], [1, 1], False, True, None)",
      "torch.avg_pool2d(y, [2, 2], [2, 2], [0, 0], False, True, 3)",
      "torch.avg_pool2d(y, [3, 3], [2, 2], [1, 1], False, False, 5)",
  };
  const std::vector<std::string> maxima = {
      "torch.max_pool2d(y, [2, 2], [2, 2], [0, 0], [1, 1], False)",
      "torch.max_pool2d(y, [3, 3], [2, 2], [1, 1], [1, 1], True)",
      "torch.max_pool2d(y, [2, 2], [1, 1], [1, 1], [2, 2], False)",
  };
  const at::Tensor x = at::randn({2, 3, 7, 7}, at::kDouble);
};

TEST_F(PoolRule, LetsTheAffinePassMaximaOfSinglePixels) {
  for (const char* pooled : {"torch.max_pool2d(y, [1, 1], [2, 2])", "torch.max_pool2d(y, 1, 2, 0, 1, True)",
                             "torch.max_pool2d_with_indices(y, [1, 1], [3, 2])[0]"}) {
    expect_folded(behind(pooled).module, {x}, "norm", "conv");
    expect_folded(before(pooled).module, {x}, "norm", "conv", with_rank(4));
  }
  expect_kept(behind("torch.max_pool2d(y, [1, 2], [2, 2])").module, {x}, "norm", Reason::scale_not_positive, "minimum");
}

TEST_F(PoolRule, LetsAPositiveScalePassAdaptiveMaxima) {
  for (const char* pooled : {"torch.adaptive_max_pool2d(y, [2, 3])[0]", "torch.max_pool2d_with_indices(y, [2, 2])[0]"}) {
    Model model = behind(pooled);
    expect_folded(with_positive_scale(model).module, {x}, "norm", "conv");
    expect_kept(behind(pooled).module, {x}, "norm", Reason::scale_not_positive, "minimum");
  }
}

TEST_F(PoolRule, DeclinesMaximaWhosePlacesAreRead) {
  Model places;
  places.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  places.forward(
      fmt::format("y, i = torch.adaptive_max_pool2d({}, [2, 3])\nreturn {}, i", conv("conv", "x"), batch_norm("norm", "y")));
  expect_kept(with_positive_scale(places).module, {x}, "norm", Reason::value_has_other_readers, "places");
}

TEST_F(PoolRule, LetsTheAffinePassAverages) {
  for (const std::string& pooled : averages) {
    expect_folded(behind(pooled).module, {x}, "norm", "conv");
    expect_folded(before(pooled).module, {x}, "norm", "conv");
  }
}

TEST_F(PoolRule, LetsTheScalePassAveragesThatCountPadding) {
  for (const std::string& pooled : counting) {
    Model back = behind(pooled);
    expect_folded(without_shift(back).module, {x}, "norm", "conv");
    Model on = before(pooled);
    expect_folded(without_shift(on).module, {x}, "norm", "conv");
  }
}

TEST_F(PoolRule, DeclinesAShiftThroughAveragesThatCountPadding) {
  for (const std::string& pooled : counting) {
    expect_kept(behind(pooled).module, {x}, "norm", Reason::shift_at_padding, "counts padding");
    expect_stopped(before(pooled).module, {x}, "norm", "forward", Reason::shift_at_padding, "counts padding");
  }
}

TEST_F(PoolRule, LetsPositiveScalesPassMaxima) {
  for (const std::string& pooled : maxima) {
    Model back = behind(pooled);
    expect_folded(with_positive_scale(back).module, {x}, "norm", "conv");
    Model on = before(pooled);
    expect_folded(with_positive_scale(on).module, {x}, "norm", "conv");
  }
}

TEST_F(PoolRule, DeclinesNegativeScalesThroughMaxima) {
  for (const std::string& pooled : maxima) {
    expect_kept(behind(pooled).module, {x}, "norm", Reason::scale_not_positive, "minimum");
    expect_stopped(before(pooled).module, {x}, "norm", "forward", Reason::scale_not_positive, "minimum");
  }
}

TEST_F(PoolRule, PassesPoolsOfOneDimension) {
  for (const char* pooled : {"torch.avg_pool1d(y, [2])", "torch.max_pool1d(y, [2])", "torch.adaptive_avg_pool1d(y, [2])"}) {
    Model model = behind_conv1d(pooled);
    expect_folded(with_positive_scale(model).module, {at::randn({4, 2, 6}, at::kDouble)}, "norm", "conv");
  }
}

TEST_F(PoolRule, DeclinesChannelsAmongThePooledDimensions) {
  Model model;
  model.layer("conv", {4, 3, 2, 2}, 4).norm("norm", 3);
  model.forward(fmt::format("y = {}\ny = torch.avg_pool2d(y, [2, 2]).permute(0, 2, 1, 3)\nreturn {}", conv("conv", "x"),
                            batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::affine_varies_elsewhere, "pooled");
}

TEST_F(PoolRule, DoesNoHarmToPoolsWithoutABatch) {
  for (const char* pooled :
       {"torch.avg_pool2d(y, [3, 3], [1, 1], [1, 1], False, False, None)", "torch.adaptive_avg_pool2d(y, [3, 3])",
        "torch.max_pool2d(y, [3, 3], [1, 1], [1, 1], [1, 1], False)"}) {
    Model model = behind_conv1d(pooled);
    expect_unharmed(with_positive_scale(model).module, {at::randn({4, 2, 5}, at::kDouble)}, with_rank(3));
  }
}

}  // namespace
}  // namespace bnfold::test
