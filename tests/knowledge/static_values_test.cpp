// Norms that are written as arithmetic with constants.
#include "knowledge/static_values.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class StaticValues : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string seen(const std::string& value) { return value + ".reshape([1, -1, 1, 1])"; }

  // conv --> the statements, which make y of y with the tensors of `norm`
  static Model behind_conv(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\n{}\nreturn y", conv("conv", "x"), statements));
  }

  static Model before_conv(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = x\n{}\nreturn {}", statements, conv("conv", "y")));
  }

  void expect_scale(const Model& model, const Options& options = {}) const {
    const FoldResult result = expect_unharmed(model.module, {x}, options);
    EXPECT_EQ(result.report.scales.size(), 1U);
    EXPECT_EQ(count_nodes(result.module, "aten::mul"), 0);
  }

  // Nothing is a norm there.
  void expect_nothing(const Model& model) const { expect_nothing(model, x); }
  void expect_nothing(const Model& model, const at::Tensor& input) const {
    const Report report = expect_unharmed(model.module, {input}).report;
    EXPECT_EQ(report.folded.size() + report.scales.size() + report.kept.size(), 0U) << report.to_table();
  }

  // first --> tanh --> u; the statements, which make y of u; conv of y, and u
  Model around(const std::string& statements, const std::string& behind = "") const {
    Model model;
    model.layer("first", {3, 3, 1, 1}, 3).layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("u = torch.tanh({})\n{}{}\nz = {}\n{}return z, u", conv("first", "x"), frozen, statements,
                                     conv("conv", "y"), behind));
  }

  // conv in `layer` --> product with a scale in `factor` --> `last`, a norm or a layer that reads y, in `wide`
  static Model scaled(at::ScalarType layer, at::ScalarType factor, at::ScalarType wide, const std::string& last) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).layer("last", {5, 4, 1, 1}, 5).norm("norm", 4);
    model.parameter("scale", (at::rand({1, 4, 1, 1}, at::kDouble) + 0.5).to(factor));
    for (const char* name : {"last", "norm"}) model.module.attr(name).toModule().to(wide);
    model.module.attr("conv").toModule().to(layer);
    return model.forward(fmt::format("y = {} * self.scale\nreturn {}", conv("conv", "x"), last));
  }

  // conv * scale + shift, each in its dtype
  static Model scaled_and_shifted(at::ScalarType layer, at::ScalarType scale, at::ScalarType shift) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).parameter("scale", (at::rand({1, 4, 1, 1}, at::kDouble) + 0.5).to(scale));
    model.parameter("shift", at::rand({1, 4, 1, 1}, at::kDouble).to(shift)).module.attr("conv").toModule().to(layer);
    return model.forward(fmt::format("return {} * self.scale + self.shift", conv("conv", "x")));
  }

  // A factor for each channel.
  const std::string computed = "factor = self.norm.weight * (self.norm.running_var + 1e-5).rsqrt()\n";

  // y becomes a sum of products with the factor, one a round; what comes behind it ends the round.
  const std::string loop =
      "y = x.sum()\nfor i in range(x.size(0)):\n  y = y + " + conv("conv", "x") + " * factor.view([4, 1, 1])\n  ";

  const std::string frozen = fmt::format("scale = {} * ({} + 1e-5).rsqrt()\nshift = {} - {} * scale\n", seen("self.norm.weight"),
                                         seen("self.norm.running_var"), seen("self.norm.bias"), seen("self.norm.running_mean"));
  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(StaticValues, FoldsAFrozenBatchNorm) {
  const FoldResult result = expect_unharmed(behind_conv(frozen + "y = y * scale + shift").module, {x});
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].into, std::vector<std::string>{"conv"});
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_F(StaticValues, FoldsAFrozenBatchNormWithItsOperandsTheOtherWayRound) {
  EXPECT_EQ(expect_unharmed(behind_conv(frozen + "y = shift + scale * y").module, {x}).report.folded.size(), 1U);
}

TEST_F(StaticValues, FoldsAFrozenBatchNormForward) {
  Model model;
  model.layer("first", {3, 3, 1, 1}, 3).layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  model.forward(
      fmt::format("y = torch.tanh({})\n{}y = y * scale + shift\nreturn {}", conv("first", "x"), frozen, conv("conv", "y")));
  const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(StaticValues, DeclinesAFrozenBatchNormWhoseStatisticsAreWritten) {
  const Model model = behind_conv("self.norm.running_mean.add_(1.0)\n" + frozen + "y = y * scale + shift");
  EXPECT_EQ(fold(model.module).report.folded.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleThatIsComputed) {
  EXPECT_EQ(expect_unharmed(behind_conv(frozen + "y = y * (scale * x.mean()) + shift").module, {x}).report.folded.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleThatIsRandom) {
  const Model model = behind_conv("y = y * (" + seen("self.norm.weight") + " + torch.rand([1]))");
  EXPECT_EQ(fold(model.module).report.scales.size(), 0U);
}

TEST_F(StaticValues, DeclinesAScaleForEachPixel) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).parameter("scale", at::randn({4, 4, 4}, at::kDouble));
  model.forward(fmt::format("return {} * self.scale", conv("conv", "x")));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.scales.size(), 0U);
}

TEST_F(StaticValues, FoldsALayerScale) {
  expect_scale(behind_conv("y = y * " + seen("self.norm.weight")));
  expect_scale(behind_conv("y = self.norm.weight.view([4, 1, 1]) * y"));
  expect_scale(behind_conv("y = y * (self.norm.weight.exp() * 0.5).view([4, 1, 1])"));
}

TEST_F(StaticValues, FoldsALayerScaleBehindALinearLayer) {
  Model model;
  model.layer("linear", {5, 3}, 5).parameter("gamma", random_scale(5));
  model.forward("return x + torch.linear(x, self.linear.weight, self.linear.bias)[..., :3] * self.gamma[:3]");
  expect_unharmed(model.module, {at::randn({4, 3}, at::kDouble)}, with_rank(2));
  Model plain;
  plain.layer("linear", {5, 3}, 5).parameter("gamma", random_scale(5));
  plain.forward("return torch.linear(x, self.linear.weight, self.linear.bias) * self.gamma");
  const FoldResult result = expect_unharmed(plain.module, {at::randn({2, 4, 3}, at::kDouble)}, with_rank(3));
  ASSERT_EQ(result.report.scales.size(), 1U);
  EXPECT_EQ(result.report.scales[0].name, "gamma");
  EXPECT_EQ(result.report.scales[0].into, std::vector<std::string>{"linear"});
}

TEST_F(StaticValues, FoldsAFactorThatIsComputedOfConstants) {
  expect_scale(behind_conv(computed + "y = y * factor.view([4, 1, 1])"));
  expect_scale(behind_conv(computed + "seen = factor.view([4, 1, 1])\ny = y * seen"));
  expect_scale(behind_conv(computed + loop + "y = y + 1"));
}

TEST_F(StaticValues, FoldsAStaticFactorThatIsWrittenInPlaceAsAWhole) {
  expect_scale(behind_conv(computed + "factor.add_(1.0)\ny = y * factor.view([4, 1, 1])"));
}

TEST_F(StaticValues, DeclinesAStaticFactorThatIsWrittenInPlaceThroughAView) {
  for (const char* write : {"factor[0] = 5.0", "factor.view([2, 2]).mul_(2.0)"}) {
    expect_nothing(behind_conv(computed + write + "\ny = y * factor.view([4, 1, 1])"));
  }
}

TEST_F(StaticValues, DeclinesAViewOfAStaticFactorThatIsWrittenInPlace) {
  expect_nothing(behind_conv(computed + "seen = factor.view([4, 1, 1])\nfactor[0] = 5.0\ny = y * seen"));
}

TEST_F(StaticValues, FoldsAStaticFactorComputedOfWhatIsWrittenInPlace) {
  expect_scale(
      behind_conv("variance = self.norm.running_var + 1e-5\nvariance.mul_(2.0)\n"
                  "y = y * (self.norm.weight * variance.rsqrt()).view([4, 1, 1])"));
}

TEST_F(StaticValues, DeclinesAStaticFactorThatALoopWritesInPlace) {
  expect_nothing(behind_conv(computed + loop + "factor.mul_(0.5)"));
}

TEST_F(StaticValues, FoldsAFrozenBatchNormWhoseScaleAndShiftAreWrittenInPlace) {
  for (const char* write : {"scale.add_(1.0)", "shift.clamp_(max=0.7)"}) {
    const Model model = behind_conv(frozen + write + "\ny = y * scale + shift");
    EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 1U) << write;
  }
}

TEST_F(StaticValues, DeclinesAFrozenBatchNormOfWhoseScaleAPartIsWrittenInPlace) {
  expect_nothing(behind_conv(frozen + "scale[0] = 1.0\ny = y * scale + shift"));
}

TEST_F(StaticValues, FoldsAFrozenBatchNormWhoseInputIsWrittenBehindTheLayer) {
  const FoldResult result = expect_unharmed(around("p = u * scale\ny = p + shift", "u.add_(1.0)\n").module, {x}, with_rank(4));
  ASSERT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(StaticValues, FoldsAFrozenBatchNormWhoseInputIsWrittenBetweenProductAndSum) {
  const Model model = around("p = u * scale\nu.add_(1.0)\ny = p + shift");
  EXPECT_EQ(expect_unharmed(model.module, {x}, with_rank(4)).report.folded.size(), 1U);
}

TEST_F(StaticValues, FoldsAScaleBeforeANormOrALayer) {
  for (const std::string& last : {batch_norm("norm", "y"), conv("last", "y")}) {
    const Model model = scaled(at::kDouble, at::kDouble, at::kDouble, last);
    EXPECT_EQ(expect_unharmed(model.module, {x}).report.scales.size(), 1U) << last;
  }
}

TEST_F(StaticValues, DeclinesAScaleThatIsWiderThanItsLayer) {
  for (const std::string& last : {std::string("y"), batch_norm("norm", "y"), conv("last", "y")}) {
    const Model model = scaled(at::kHalf, at::kFloat, at::kFloat, last);
    const FoldResult result = expect_unharmed(model.module, {x});
    EXPECT_EQ(result.report.scales.size() + result.report.folded.size(), 0U) << last;
    expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kHalf)}, 5e-3);
  }
}

TEST_F(StaticValues, DeclinesAScaleThatIsWiderThanWhatTheNormBeforeItReads) {
  Model model;
  model.norm("first", 3).parameter("scale", random_scale(3).view({3, 1, 1}));
  model.forward("return " + batch_norm("first", "x") + " * self.scale");
  model.module.to(at::kFloat);
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(result.report.scales.size(), 0U);
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kHalf)}, 5e-3);
}

TEST_F(StaticValues, FoldsAScaleAndAShiftOfOneDtype) {
  for (const at::ScalarType dtype : {at::kDouble, at::kHalf}) {
    const Model model = scaled_and_shifted(dtype, dtype, dtype);
    const FoldResult result = expect_unharmed(model.module, {x});
    EXPECT_EQ(result.report.folded.size(), 1U);
    expect_same_output_in_own_dtype(model.module, result.module, {x.to(dtype)}, 5e-3);
  }
}

TEST_F(StaticValues, DeclinesAShiftThatIsWiderThanItsScale) {
  const Model model = scaled_and_shifted(at::kHalf, at::kHalf, at::kFloat);
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(result.report.folded.size(), 0U);
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kHalf)}, 5e-3);
}

// conv --> u, after `write` --> product with a scale --> last
Model scale_of_what_is_written(const std::string& write) {
  Model model;
  model.layer("conv", {4, 3, 1, 1}, 4).layer("last", {5, 4, 1, 1}, 5).parameter("scale", random_scale(4).view({4, 1, 1}));
  return model.forward(fmt::format("u = {}\n{}\nreturn {}", conv("conv", "x"), write, conv("last", "(u * self.scale)")));
}

TEST_F(StaticValues, FoldsAScaleWhoseInputIsWrittenInPlace) {
  const FoldResult result = expect_unharmed(scale_of_what_is_written("u.relu_()").module, {x.narrow(2, 0, 1)});
  EXPECT_EQ(result.report.scales.size(), 1U);
}

TEST_F(StaticValues, DeclinesAScaleWhoseInputIsTransposedInPlace) {
  expect_nothing(scale_of_what_is_written("u.transpose_(1, 2)"), x.narrow(2, 0, 1));
}

TEST_F(StaticValues, KeepsNoRecordOfALayerScaleThatStays) {
  const FoldResult result = expect_unharmed(behind_conv("y = torch.sigmoid(y) * " + seen("self.norm.weight")).module, {x});
  EXPECT_EQ(result.report.scales.size() + result.report.kept.size(), 0U);
}

TEST_F(StaticValues, DeclinesALayerScaleWithAnotherReader) {
  const Model model = behind_conv("y = y * " + seen("self.norm.weight") + " + y");
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.scales.size(), 0U);
}

TEST_F(StaticValues, DoesNoHarmWhereTheInputIsWrittenBetweenProductAndSum) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  model.forward(fmt::format("u = torch.tanh(x)\np = u * {}\nu.add_(1.0)\ny = p + {}\nreturn {}, u", seen("self.norm.weight"),
                            seen("self.norm.bias"), conv("conv", "y")));
  expect_unharmed(model.module, {x}, with_rank(4));
}

TEST_F(StaticValues, DoesNoHarmWhereTheScaleBroadcastsItsInput) {
  expect_unharmed(before_conv("y = y * " + seen("self.norm.weight")).module, {x.narrow(1, 0, 1)}, with_rank(4));
}

// ---- norms whose parameters are computed

// relu and a layer behind a norm with such a weight
Model with_computed_parameters(const std::string& weight) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  return model.forward(
      fmt::format("y = torch.batch_norm(x, {}, self.norm.bias * 1.5, self.norm.running_mean + 0.1, self.norm.running_var * 2.0, "
                  "False, 0.1, 1e-5, False)\n"
                  "return {}",
                  weight, conv("conv", "torch.relu(y)")));
}

TEST_F(StaticValues, FoldsANormWhoseParametersAreComputedFromParameters) {
  const FoldResult result = expect_unharmed(with_computed_parameters("self.norm.weight.sign() * 0.7").module, {x}, with_rank(4));
  EXPECT_EQ(result.report.folded.size(), 1U);
}

TEST_F(StaticValues, DeclinesANormWhoseWeightIsComputedFromTheInput) {
  const FoldResult result = expect_unharmed(with_computed_parameters("self.norm.weight * x.mean()").module, {x}, with_rank(4));
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(result.report.kept[0].reason, Reason::norm_parameters_not_static);
}

// ---- weights that are computed from parameters

class ComputedWeights : public StaticValues {
 protected:
  // conv, with `weight` in the place of its weight, and a norm; the module holds u [4] and g [4, 1, 1, 1] as well
  static Model normed(const std::string& weight, const std::string& before = "") {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    model.parameter("u", at::randn({4}, at::kDouble)).parameter("g", at::randn({4, 1, 1, 1}, at::kDouble));
    model.buffer("places", at::tensor({3, 1, 0, 2}));
    const std::string layer = fmt::format("torch.conv2d(x, {}, self.conv.bias)", weight);
    return model.forward(fmt::format("w = self.conv.weight\n{}\nreturn {}", before, batch_norm("norm", layer)));
  }

  FoldResult expect_folded(const Model& model) const {
    FoldResult result = expect_unharmed(model.module, {x});
    EXPECT_EQ(result.report.folded.size(), 1U) << result.report.to_table();
    EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
    return result;
  }

  void expect_kept(const Model& model) const {
    const Report report = expect_unharmed(model.module, {x}).report;
    ASSERT_EQ(report.kept.size(), 1U);
    EXPECT_EQ(name(report.kept[0].reason), "weight_not_static");
  }

  static inline const std::string kStandardized =
      "torch.batch_norm(w.reshape(1, 4, -1), None, None, None, None, True, 0.0, 1e-5, False).reshape_as(w)";
};

TEST_F(ComputedWeights, AreFolded) {
  for (const char* weight : {"torch._weight_norm(w, self.g, 0)", "w * (self.g / torch.norm_except_dim(w, 2, 0))", "w.flip(0)",
                             "(w - w.mean([1, 2, 3], True)) / (w.std([1, 2, 3], True, True) + 1e-5)", "w.transpose(2, 3)",
                             "w.clamp(-1, 1).to(w.dtype)", "w[self.places > 1].repeat([2, 1, 1, 1])", "w[[3, 1, 0, 2]]",
                             "w if w.dim() == 4 else w.unsqueeze(3)"}) {
    SCOPED_TRACE(weight);
    expect_folded(normed(weight));
  }
}

TEST_F(ComputedWeights, AreFoldedWhereSizesComeFromThem) {
  expect_folded(normed("w / torch.dot(self.u, torch.mv(w.reshape(w.size(0), -1), w.reshape(w.size(0), -1)[0]))"));
  expect_folded(normed("w / torch.dot(self.u, torch.mv(w.reshape(w.size(0), -1), w.flatten().reshape(4, -1).sum(0)))"));
}

TEST_F(ComputedWeights, BecomeTheWeightOfTheirLayer) {
  const FoldResult result = expect_folded(normed("torch._weight_norm(w, self.g, 0)"));
  EXPECT_EQ(result.report.folded[0].into, std::vector<std::string>{"conv"});
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

// As F.interpolate asks for the rank of what it is given.
TEST_F(ComputedWeights, AreFoldedBehindConditionsOnTheRankOfAWeight) {
  const std::string asked = "if {}.dim() == 4:\n  v = w.flip(0)\nelse:\n  assert False";
  expect_folded(normed("v", fmt::format(fmt::runtime(asked), "w")));
  expect_folded(normed("v", fmt::format(fmt::runtime(asked), "w.flip(1)")));
  expect_kept(normed("v", fmt::format(fmt::runtime(asked), "x")));
}

TEST_F(ComputedWeights, OfTheInputAreNone) {
  expect_kept(normed("w * x.mean()"));
  expect_kept(normed("w[[x.size(0) % 2, 1, 0, 2]]"));
  expect_kept(normed("w if x.dim() == 4 else w.flip(0)"));
  expect_kept(normed("w / torch.dot(self.u, torch.mv(w.reshape(x.size(0) * 0 + 4, -1), w.reshape(4, -1).sum(0)))"));
}

TEST_F(ComputedWeights, ThatAreRandomAreNone) {
  expect_kept(normed("w + 0.0 * torch.rand_like(w)"));
}

TEST_F(ComputedWeights, ThatAreWrittenAreNone) {
  expect_kept(normed("v", "v = w * 2\nv.add_(x.mean())"));
  expect_kept(normed("v.flip(0)", "v = w * 2\nv[0] = 0.5"));
}

TEST_F(ComputedWeights, AreNotNormsWhereBatchNormStandardizesThem) {
  const FoldResult result = expect_folded(normed(kStandardized));
  EXPECT_TRUE(result.report.kept.empty());
}

TEST_F(ComputedWeights, AreNotWhatANormWithStatisticsMakesOfAParameter) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4).parameter("place", at::randn({1, 4, 1, 1}, at::kDouble));
  model.forward("return " + conv("conv", "x") + " * " + batch_norm("norm", "self.place"));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.kept.size(), 1U);
}

TEST_F(ComputedWeights, AreNotWhatBatchNormMakesOfTheInput) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4)
      .forward("return " + conv("conv", "torch.batch_norm(x, None, None, None, None, True, 0.0, 1e-5, False)"));
  const Report report = expect_unharmed(model.module, {x}).report;
  ASSERT_EQ(report.kept.size(), 1U);
  EXPECT_EQ(name(report.kept[0].reason), "norm_without_running_statistics");
}

}  // namespace
}  // namespace bnfold::test
