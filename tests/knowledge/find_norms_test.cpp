#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class FindNorms : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static constexpr const char* kConv = "y = torch.conv2d(x, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1)\n";

  static Model conv() {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("block.norm", 4);
    return model;
  }

  static Model conv_then_norm() { return conv().forward(kConv + ("return " + batch_norm("block.norm", "y"))); }

  // conv --> norm, which is called with `expression` in the place of `argument`
  static Model with_argument(const std::string& argument, const std::string& expression) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
    std::string call = batch_norm("norm", "y");
    call.replace(call.find(argument), argument.size(), expression);
    return model.forward(kConv + ("return " + call));
  }

  static at::Tensor of_norm(const Model& model, const char* name) {
    return model.module.attr("block").toModule().attr("norm").toModule().attr(name).toTensor();
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(FindNorms, NamesANormByItsPath) {
  expect_folded(conv_then_norm().module, {x}, "block.norm", "conv");
}

TEST_F(FindNorms, NamesANormOfTheRootByItsParameter) {
  Model model;
  model.layer("conv", {4, 3, 3, 3})
      .buffer("mean", at::randn({4}, at::kDouble))
      .buffer("variance", at::rand({4}, at::kDouble) + 0.5);
  model.forward(kConv + std::string("return torch.batch_norm(y, None, None, self.mean, self.variance, False, 0.1, 0.001, True)"));
  expect_folded(model.module, {x}, "mean", "conv");
}

TEST_F(FindNorms, DeclinesANormInTrainingMode) {
  Model model = conv().forward(kConv + ("return " + batch_norm("block.norm", "y", true)));
  expect_kept(model.module, {}, "block.norm", Reason::norm_in_training_mode, "each batch");
}

TEST_F(FindNorms, DeclinesANormThatDecidesAtRunTime) {
  std::string call = batch_norm("block.norm", "y");
  call.replace(call.find("False"), 5, "x.size(0) > 1");
  expect_kept(conv().forward(kConv + ("return " + call)).module, {}, "block.norm", Reason::norm_in_training_mode,
              "while the module runs");
}

TEST_F(FindNorms, DeclinesANormWithoutRunningStatistics) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).parameter("norm.weight", random_scale(4)).parameter("norm.bias", random_scale(4));
  model.forward(kConv +
                std::string("return torch.batch_norm(y, self.norm.weight, self.norm.bias, None, None, True, 0.1, 0.001, True)"));
  expect_kept(model.module, {x}, "norm", Reason::norm_without_running_statistics);
}

TEST_F(FindNorms, DeclinesComputedParameters) {
  const Model model = with_argument("self.norm.bias", "self.norm.bias * x.mean()");
  expect_kept(model.module, {x}, "norm", Reason::norm_parameters_not_static, "bias");
}

TEST_F(FindNorms, DeclinesAComputedEpsilon) {
  const Model model = with_argument("1e-05", "0.1 * x.size(0)");
  expect_kept(model.module, {x}, "norm", Reason::norm_parameters_not_static, "eps");
}

TEST_F(FindNorms, DeclinesStatisticsThatAreWrittenInPlace) {
  Model model = conv();
  model.forward("self.block.norm.running_mean.mul_(0.5)\n" + (kConv + ("return " + batch_norm("block.norm", "y"))));
  expect_kept(model.module, {}, "block.norm", Reason::norm_parameters_not_static, "running_mean");
}

TEST_F(FindNorms, DeclinesStatisticsThatAnotherNormTrains) {
  Model model = conv();
  model.forward(kConv + ("z = " + batch_norm("block.norm", "x.repeat(1, 2, 1, 1)[:, :4]", true) + "\nreturn z.mean() * " +
                         batch_norm("block.norm", "y")));
  const FoldResult result = fold(model.module);
  ASSERT_EQ(result.report.kept.size(), 2U);
  EXPECT_EQ(result.report.kept[1].reason, Reason::norm_parameters_not_static);
}

// conv --> norm, with the statistics that another spelling of the norm reads, and writes where `training`
Model beside_another_norm(Model model, const std::string& conv, const std::string& operation, const std::string& training,
                          const std::string& behind) {
  const std::string call = fmt::format(
      "torch.{}(x.repeat([1, 2, 1, 1])[:, :4], None, None, self.block.norm.running_mean, self.block.norm.running_var, {}, 0.1, "
      "1e-05{})",
      operation, training, behind);
  return model.forward(conv + "z = " + call + "[0]\nreturn z.mean() * " + batch_norm("block.norm", "y"));
}

TEST_F(FindNorms, FoldsANormWhoseStatisticsAnotherOneReads) {
  for (const auto& [operation, behind] : {std::pair{"native_batch_norm", ""}, std::pair{"_batch_norm_impl_index", ", True"}}) {
    const Model model = beside_another_norm(conv(), kConv, operation, "False", behind);
    const FoldResult result = fold(model.module);
    EXPECT_EQ(result.report.folded.size(), 1U) << operation;
    expect_same_output(model.module, result.module, {x});
  }
}

TEST_F(FindNorms, DeclinesStatisticsThatANormOfAnotherSpellingTrains) {
  for (const char* training : {"True", "x.size(0) > 1"}) {
    for (const auto& [operation, behind] : {std::pair{"native_batch_norm", ""}, std::pair{"_batch_norm_impl_index", ", True"}}) {
      expect_kept(beside_another_norm(conv(), kConv, operation, training, behind).module, {}, "block.norm",
                  Reason::norm_parameters_not_static, "running_mean");
    }
  }
}

TEST_F(FindNorms, FindsAFactorThatIsComputedOfAParameter) {
  Model model = conv().forward(kConv + std::string("factor = self.block.norm.weight * 2\nreturn y * factor.view([4, 1, 1])"));
  const FoldResult result = expect_unharmed(model.module, {x});
  ASSERT_EQ(result.report.scales.size(), 1U);
  EXPECT_EQ(result.report.scales[0].name, "block.norm");
}

TEST_F(FindNorms, FindsNoStaticFactorOfWhichAPartIsWrittenInPlace) {
  Model model = conv().forward(
      kConv + std::string("factor = self.block.norm.weight * 2\nfactor[0] = 1.0\nreturn y * factor.view([4, 1, 1])"));
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(result.report.scales.size() + result.report.folded.size() + result.report.kept.size(), 0U);
}

// conv --> `normalized`, an expression of y --> scale and shift of `sizes`
FoldResult with_affine_behind(const std::string& normalized, at::IntArrayRef sizes, const at::Tensor& x,
                              const std::string& end = "") {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).parameter("scale", at::rand(sizes, at::kDouble) + 0.5);
  model.parameter("shift", at::randn(sizes, at::kDouble));
  model.forward(fmt::format("y = {}\nreturn ({} * self.scale + self.shift){}", conv("conv", "x"), normalized, end));
  return expect_unharmed(model.module, {x});
}

TEST_F(FindNorms, KeepsAnAffineOfEachChannelAsANorm) {
  for (const char* value : {"torch.tanh(y)", "(torch.tanh(y) / 3.0)", "(torch.tanh(y) * torch.sigmoid(y))"}) {
    EXPECT_EQ(with_affine_behind(value, {4, 1, 1}, x, ".sin()").report.kept.size(), 1U) << value;
  }
}

// Images of which each channel gets its mean and deviation back.
TEST_F(FindNorms, FindsNoNormInAnAffineOfAnOutput) {
  EXPECT_EQ(with_affine_behind("torch.tanh(y)", {4, 1, 1}, x).report.kept.size(), 0U);
  EXPECT_EQ(with_affine_behind("y", {4, 1, 1}, x).report.folded.size(), 1U);
}

TEST_F(FindNorms, FindsNoNormInOneNumberForAllChannels) {
  EXPECT_EQ(with_affine_behind("torch.tanh(y)", {1}, x).report.kept.size(), 0U);
  EXPECT_EQ(with_affine_behind("torch.tanh(y)", {1, 1, 1}, x).report.kept.size(), 0U);
  for (const char* scaled : {"(torch.tanh(y) + self.conv.bias.reshape([4, 1, 1])) * torch.tensor(0.5, dtype=7)",
                             "(torch.tanh(y) + self.conv.bias.reshape([4, 1, 1])) * self.conv.bias[:1]"}) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).forward("y = " + test::conv("conv", "x") + "\nreturn (" + scaled + ").sin()");
    EXPECT_EQ(expect_unharmed(model.module, {x}).report.kept.size(), 0U) << scaled;
  }
  const FoldResult result = with_affine_behind("y", {1}, x);
  EXPECT_EQ(result.report.scales.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::mul"), 0);
}

TEST_F(FindNorms, FindsNoNormInTheAffineOfALayerNorm) {
  for (const char* normalized :
       {"(y / torch.sqrt(y.var([1], True, True) + 0.1))", "(y * torch.rsqrt(y.pow(2).mean([1], True) + 0.1))",
        "(y * (y.norm(2, [2, 3], True) / y.norm(2, [1, 2, 3], True)))", "torch.layer_norm(y, [4, 4])",
        "torch.div(y, y.norm(2, [1], True)).permute([0, 1, 3, 2])"}) {
    EXPECT_EQ(with_affine_behind(normalized, {4, 1, 1}, x).report.kept.size(), 0U) << normalized;
  }
}

// conv --> `expression`, with a scale and a shift of each channel
FoldResult with_addcmul(const std::string& expression, const at::Tensor& x) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).parameter("scale", random_scale(4).view({4, 1, 1}));
  model.parameter("shift", at::randn({4, 1, 1}, at::kDouble)).parameter("one", at::randn({1, 1}, at::kDouble));
  model.forward(fmt::format("y = {}\nreturn {}", conv("conv", "x"), expression));
  return expect_unharmed(model.module, {x});
}

TEST_F(FindNorms, FindsANormInAddcmul) {
  for (const char* expression : {"torch.addcmul(self.shift, y, self.scale)", "torch.addcmul(self.shift, self.scale, y)"}) {
    const FoldResult result = with_addcmul(expression, x);
    ASSERT_EQ(result.report.folded.size(), 1U) << expression;
    EXPECT_EQ(count_nodes(result.module, "aten::addcmul"), 0);
  }
}

TEST_F(FindNorms, FindsANormInAddcmulWithAnyFactorAndSizes) {
  for (const char* expression : {"torch.addcmul(self.shift, y, self.scale, value=2)", "torch.addcmul(self.one, y, self.scale)",
                                 "torch.addcdiv(self.shift, y, self.scale.abs() + 1.0)"}) {
    const FoldResult result = with_addcmul(expression, x);
    EXPECT_EQ(result.report.folded.size(), 1U) << expression;
  }
}

TEST_F(FindNorms, FindsNoNormInAnotherAddcmul) {
  for (const char* expression :
       {"torch.addcmul(y, y, self.scale)", "torch.addcmul(self.shift, y, y)", "torch.addcdiv(self.shift, self.scale, y)",
        "torch.addcmul(self.shift, y, self.scale, value=x.size(0))", "torch.addcmul(self.shift, self.shift, self.scale) + y"}) {
    const FoldResult result = with_addcmul(expression, x);
    EXPECT_EQ(result.report.folded.size() + result.report.kept.size(), 0U) << expression;
  }
}

constexpr std::array<const char*, 9> kArithmetic = {"aten::add",     "aten::sub",     "aten::mul",  "aten::div", "aten::neg",
                                                    "aten::addcmul", "aten::addcdiv", "aten::rsub", "aten::sqrt"};

int64_t count_arithmetic(const torch::jit::Module& module) {
  int64_t count = 0;
  for (const char* name : kArithmetic) count += count_nodes(module, name);
  return count;
}

// conv --> `expression` of y, with m, v, w and b for each channel
Model written_out(const std::string& expression, at::ScalarType dtype_of_m = at::kDouble) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).buffer("m", at::randn({4}, at::kDouble).to(dtype_of_m));
  model.buffer("v", at::rand({4}, at::kDouble) + 0.5);
  model.parameter("w", random_scale(4)).parameter("b", at::randn({4}, at::kDouble));
  model.buffer("wide", at::randn({4, 1, 4}, at::kDouble));
  return model.forward(
      fmt::format("y = {}\n"
                  "m, v = self.m.view(1, -1, 1, 1), self.v.reshape(1, 4, 1, 1)\n"
                  "w, b = self.w[None, :, None, None], self.b.unsqueeze(-1).unsqueeze(-1)\n"
                  "z = y - m\n"
                  "return {}",
                  conv("conv", "x"), expression));
}

TEST_F(FindNorms, FindsAWholeNormThatIsWrittenOut) {
  for (const char* expression :
       {"(y - m) / torch.sqrt(v + 1e-5) * w + b", "(y - m) * torch.rsqrt(v + 1e-5) * w + b",
        "w * ((y - m) / (v + 1e-5) ** 0.5) + b", "(y - m) * (v + 1e-5).pow(-0.5) * w + b",
        "torch.addcmul(b, (y - m) / v.sqrt(), w)", "y.sub(m).div(v).mul(w).add(b)", "(y - m) / v", "b - (m - y) * w",
        "-(m - y) * w * 2.0 + b", "torch.add(y, m, alpha=-2) / v * 0.5 + b", "y * (w / v) + (b - m * (w / v))",
        "y * self.w.view(1, y.size(1), 1, 1) + self.b.view([y.shape[1], 1, 1])", "y * w.to(y.dtype) + b.type_as(y)",
        "(y - m.to(y)) / v.to(device=y.device, dtype=y.dtype) * w + b", "(y - m).permute(0, 2, 3, 1) * self.w + self.b"}) {
    const Model model = written_out(expression);
    const FoldResult result = expect_unharmed(model.module, {x});
    const bool apart = std::string(expression).find("permute") != std::string::npos;
    EXPECT_EQ(result.report.folded.size(), 1U) << expression;
    EXPECT_EQ(count_arithmetic(result.module), apart ? 1 : 0) << expression;
  }
}

TEST_F(FindNorms, FindsOnlyThePartOfANormWhoseConstantsFit) {
  for (const char* expression :
       {"(y - m) * (y - m).mean() * w + b", "(y - self.wide) * w + b", "torch.div(y, v, rounding_mode='floor') * w + b",
        "(v / y) * w + b", "(y - x.size(0)) * w + b", "(y - y.mean()) * w + b", "y * w.to(torch.frexp(y)[0].dtype) + b"}) {
    const Model model = written_out(expression);
    const FoldResult result = expect_unharmed(model.module, {x});
    EXPECT_GT(count_arithmetic(result.module), 0) << expression;
  }
  const Model model = written_out("(y - m) * w + b", at::kFloat);
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(count_nodes(result.module, "aten::sub"), 1);
}

// tanh(conv(x)) in the range that the caller wants
TEST_F(FindNorms, ListsNoScalingOfAnOutput) {
  for (const char* const output : {"torch.tanh(y) * w + b", "(torch.tanh(y) * w + b, y)"}) {
    EXPECT_TRUE(expect_unharmed(written_out(output).module, {x}).report.kept.empty()) << output;
  }
  const FoldResult result = expect_unharmed(written_out("(torch.sigmoid(torch.tanh(y) * w + b), y)").module, {x});
  EXPECT_EQ(result.report.kept.size(), 1U);
}

TEST_F(FindNorms, FindsNoPartOfANormThatOthersRead) {
  const FoldResult result = expect_unharmed(written_out("torch.relu(z * w + b) + torch.tanh(z)").module, {x});
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(result.report.kept[0].reason, Reason::value_has_other_readers);
}

TEST_F(FindNorms, TakesNoCastOfAValueForAConstant) {
  const FoldResult result = expect_unharmed(written_out("w * y.to(w) + b").module, {x});
  EXPECT_EQ(result.report.folded.size(), 1U);
}

// Images that the caller gave, before a padded convolution.
FoldResult with_prepared_input(const std::string& prepared, const at::Tensor& x) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).buffer("mean", at::randn({3, 1, 1}, at::kDouble));
  model.buffer("deviation", at::rand({3, 1, 1}, at::kDouble) + 0.5);
  model.forward(
      fmt::format("y = {}\nreturn torch.conv2d(y, self.conv.weight, self.conv.bias, [1, 1], [1, 1], [1, 1], 1)", prepared));
  return expect_unharmed(model.module, {x});
}

TEST_F(FindNorms, FindsNoNormInHowAnInputIsPrepared) {
  for (const char* prepared : {"(x - self.mean) / self.deviation", "(x / 255.0 - self.mean) * self.deviation"}) {
    EXPECT_EQ(with_prepared_input(prepared, x).report.kept.size(), 0U) << prepared;
  }
  EXPECT_EQ(with_prepared_input("(x - self.mean) / self.deviation * self.mean + self.mean", x).report.kept.size(), 1U);
  EXPECT_EQ(with_prepared_input("(torch.tanh(x) - self.mean) / self.deviation", x).report.kept.size(), 1U);
}

TEST_F(FindNorms, DeclinesNanAndInfiniteMeans) {
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const Model model = conv_then_norm();
    of_norm(model, "running_mean")[1] = value;
    expect_kept(model.module, {}, "block.norm", Reason::norm_statistics_not_finite, "NaN or infinite");
  }
}

TEST_F(FindNorms, DeclinesNegativeVariances) {
  const Model model = conv_then_norm();
  of_norm(model, "running_var")[1] = -1;
  expect_kept(model.module, {}, "block.norm", Reason::norm_statistics_not_finite, "positive");
}

TEST_F(FindNorms, DeclinesParametersOfDifferentLengths) {
  Model model = conv_then_norm();
  model.module.attr("block").toModule().attr("norm").toModule().setattr("bias", at::randn({3}, at::kDouble));
  expect_kept(model.module, {}, "block.norm", Reason::norm_channels_disagree);
}

TEST_F(FindNorms, DeclinesParametersOfDifferentDtypes) {
  Model model = conv_then_norm();
  torch::jit::Module norm = model.module.attr("block").toModule().attr("norm").toModule();
  norm.setattr("bias", norm.attr("bias").toTensor().to(at::kFloat));
  expect_kept(model.module, {}, "block.norm", Reason::dtypes_differ, "different dtypes");
}

}  // namespace
}  // namespace bnfold::test
