// Which convolutions are faster as steps.
#include "fuse/conv_islands.h"

#include "support/fused.h"

namespace bnfold::test {
namespace {

class ConvIslands : public Fused {
 protected:
  // The steps made of forward(x), for an x of [images, 4, side, side].
  static size_t steps(const std::string& statements, int64_t side, int64_t images = 1) {
    Model model;
    model.layer("conv", {4, 4, 3, 3}, 4)
        .layer("point", {4, 4, 1, 1}, 4)
        .layer("large", {4, 4, 5, 5}, 4)
        .layer("across", {4, 4, 1, 5}, 4);
    model.layer("grouped", {4, 2, 3, 3}, 4).layer("volume", {4, 4, 3, 3, 3}, 4);
    model.forward(statements);
    model.module.to(at::kFloat);
    const at::Tensor x = at::randn({images, 4, side, side});
    const OptimizeResult result = optimize_for_inference(model.module, {x});
    for (const auto& unfused : result.unfused) EXPECT_EQ(name(unfused.obstacle), "product_too_small") << unfused.detail;
    for (const at::Tensor& input : {x, at::randn({2, 4, 9, 8}), at::randn({1, 4, 80, 80})}) {
      const auto [one, other] = outputs_of(model.module, result.module, input);
      expect_near(one, other);
      EXPECT_EQ(one.is_contiguous(), other.is_contiguous());
    }
    return result.fused.size();
  }

  static std::string c(const std::string& value = "x") { return conv("conv", value, 1); }
  static std::string p(const std::string& value = "x") { return conv("point", value); }
};

TEST_F(ConvIslands, AreLeftWhereLibTorchMultipliesPlainMatrices) {
  EXPECT_EQ(steps("return torch.relu(" + c() + ")", 71), 0U);  // 20164 numbers, 726 thousand products
  EXPECT_EQ(steps("return torch.relu(" + c() + ")", 72), 1U);
  EXPECT_EQ(steps("return " + c(), 9, 1), 0U);
  EXPECT_EQ(steps("return " + c(), 9, 2), 1U);
  EXPECT_EQ(steps("return " + conv("large", "x", 2), 9), 1U);
  EXPECT_EQ(steps("return " + conv("across", "x", 2), 9), 0U);
  EXPECT_EQ(steps("return torch.conv2d(x, self.grouped.weight, None, [1, 1], [1, 1], [1, 1], 2)", 9), 1U);
}

TEST_F(ConvIslands, AreLeftForPointsUnlessTheProductIsLarge) {
  EXPECT_EQ(steps("return " + p(), 361), 0U);
  EXPECT_EQ(steps("return " + p(), 363), 1U);  // 2.1 million products
  EXPECT_EQ(steps("return " + p(), 9, 15), 0U);
  EXPECT_EQ(steps("return " + p(), 9, 16), 1U);
  EXPECT_EQ(steps("return torch.conv2d(x, self.point.weight, None, [2, 2])", 72), 1U);
}

TEST_F(ConvIslands, AreKeptWhereOneOfThemGains) {
  const std::string large = conv("large", "x", 2);
  EXPECT_EQ(steps("return " + p("torch.relu(" + large + ")"), 9), 2U);
  EXPECT_EQ(steps("return torch.relu(" + p("torch.max_pool2d(" + large + ", [2, 2])") + ") + 1", 9), 2U);
  EXPECT_EQ(steps("return torch.conv2d(torch.relu(" + p() + "), self.large.weight, None, [1, 1], [2, 2])", 9), 2U);
  EXPECT_EQ(steps("return torch.relu(" + p("torch.tanh(x)") + " + " + large + ")", 9), 2U);
  EXPECT_EQ(steps("y = " + large + "\nreturn y.flatten(1).sum() * " + p(), 9), 1U);
}

TEST_F(ConvIslands, AreKeptForVolumes) {
  EXPECT_EQ(steps("return torch.conv3d(x.unsqueeze(2), self.volume.weight, None, [1, 1, 1], [1, 1, 1])", 9), 1U);
}

TEST_F(ConvIslands, AreKeptWhereNothingTellsTheSize) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).forward("return " + c());
  model.module.to(at::kFloat);
  EXPECT_EQ(optimize_for_inference(model.module, std::vector<c10::IValue>()).fused.size(), 1U);
}

TEST_F(ConvIslands, SayNothingOfTheSumAndTheActivationThatStay) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4)
      .forward("y = torch.relu(" + c() + ")\nu = " + c("y") + "\nreturn torch.relu(u + x.mean()) + u");
  model.module.to(at::kFloat);
  const OptimizeResult result = optimize_for_inference(model.module, {at::randn({1, 4, 9, 8})});
  ASSERT_EQ(result.unfused.size(), 2U);
  for (const auto& unfused : result.unfused) EXPECT_EQ(unfused.step, "conv2d");
}

}  // namespace
}  // namespace bnfold::test
