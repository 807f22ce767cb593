#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/close.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

std::string instance_norm(const std::string& path, const std::string& value) {
  return fmt::format(
      "torch.instance_norm({1}, self.{0}.weight, self.{0}.bias, self.{0}.running_mean, self.{0}.running_var, False, 0.1, 1e-05, "
      "True)",
      path, value);
}

class NormRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model two_norms(const std::string& statements, int64_t channels = 3) {
    Model model;
    model.norm("first", 3).norm("second", channels).layer("conv", {4, 3, 3, 3}, 4);
    return model.forward(statements);
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(NormRule, TakesANormBehindIt) {
  const Model model = two_norms(fmt::format("y = {}\nreturn {}", batch_norm("first", "x"), batch_norm("second", "y")));
  const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 1);
}

TEST_F(NormRule, TakesAnInstanceNormWithRunningStatistics) {
  const Model model = two_norms(fmt::format("y = {}\nreturn {}", instance_norm("first", "x"), instance_norm("second", "y")));
  const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
  EXPECT_EQ(count_nodes(result.module, "aten::instance_norm"), 1);
}

TEST_F(NormRule, TakesANormBehindItWithoutWeightAndBias) {
  Model model;
  model.norm("first", 3).norm("second", 3);
  model.forward(fmt::format(
      "y = torch.batch_norm(x, None, None, self.first.running_mean, self.first.running_var, False, 0.1, 1e-3, True)\nreturn {}",
      batch_norm("second", "y")));
  EXPECT_EQ(expect_unharmed(model.module, {x}, with_rank(4)).report.folded.size(), 1U);
}

TEST_F(NormRule, TakesANormBeforeItWhereNothingElseDoes) {
  Model model = two_norms(
      fmt::format("y = {}\nz = torch.max_pool2d(y, [2, 2])\nreturn {}", batch_norm("first", "x"), batch_norm("second", "z")));
  model.module.attr("first").toModule().attr("weight").toTensor().abs_();
  expect_folded(model.module, {x}, "first", "second", with_rank(4));
}

TEST_F(NormRule, MakesItsStatisticsThoseOfWhatItReadsNow) {
  Model model = two_norms(
      fmt::format("y = {}\nz = torch.max_pool2d(y, [2, 2])\nreturn {}", batch_norm("first", "x"), batch_norm("second", "z")));
  const auto first = [&model](const char* name) { return model.module.attr("first").toModule().attr(name).toTensor(); };
  const auto second = [&model](const char* name) { return model.module.attr("second").toModule().attr(name).toTensor(); };
  first("weight").abs_().select(0, 1).zero_();
  const at::Tensor scale = first("weight") / (first("running_var") + 1e-5).sqrt();
  const at::Tensor shift = first("bias") - first("running_mean") * scale;
  const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
  const auto folded = [&result](const char* name) { return result.module.attr("second").toModule().attr(name).toTensor(); };
  const at::Tensor mean = ((second("running_mean") - shift) / scale).masked_fill(scale.eq(0), 0);
  const at::Tensor variance = (second("running_var") / scale.square()).masked_fill(scale.eq(0), 0);
  EXPECT_LE(relative_error(mean, folded("running_mean")), 1e-12);
  EXPECT_LE(relative_error(variance, folded("running_var")), 1e-12);
}

TEST_F(NormRule, DeclinesADeviationOfZero) {
  for (const char* epsilon : {"1e-05", "0.0"}) {
    Model model = two_norms(
        fmt::format("y = {}\nz = torch.max_pool2d(y, [2, 2])\nreturn torch.batch_norm(z, self.second.weight, self.second.bias, "
                    "self.second.running_mean, self.second.running_var, False, 0.1, {}, True)",
                    batch_norm("first", "x"), epsilon));
    model.module.attr("first").toModule().attr("weight").toTensor().abs_().select(0, 1).zero_();
    const FoldResult result = expect_unharmed(model.module, {x}, with_rank(4));
    EXPECT_EQ(result.report.folded.size(), std::string(epsilon) == "0.0" ? 0U : 1U);
  }
}

TEST_F(NormRule, GoesOnIntoTheLayerBehindBoth) {
  const Model model =
      two_norms(fmt::format("y = {}\nz = {}\nreturn {}", batch_norm("first", "x"), batch_norm("second", "y"), conv("conv", "z")));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 2U);
}

TEST_F(NormRule, DeclinesANormThatTrains) {
  const Model model = two_norms(fmt::format("y = {}\nreturn {}", batch_norm("first", "x", true), batch_norm("second", "y")));
  expect_kept(model.module, {}, "second", Reason::norm_in_training_mode, "", with_rank(4));
}

TEST_F(NormRule, DeclinesANormOfAnotherDtype) {
  Model model = two_norms(fmt::format("y = {}\nreturn {}", batch_norm("first", "x"), batch_norm("second", "y")));
  model.module.attr("second").toModule().to(at::kFloat);
  expect_kept(model.module, {}, "second", Reason::dtypes_differ, "two norms", with_rank(4));
}

TEST_F(NormRule, DeclinesANormWithItsChannelsElsewhere) {
  const Model model =
      two_norms(fmt::format("y = {}.permute(0, 2, 1, 3)\nreturn {}", batch_norm("first", "x"), batch_norm("second", "y")), 6);
  expect_kept(model.module, {x}, "second", Reason::affine_varies_elsewhere, "different dimensions");
}

TEST_F(NormRule, DeclinesAProductThatWouldLeaveTheRange) {
  Model model = two_norms(fmt::format("y = {}\nreturn {}", batch_norm("first", "x"), batch_norm("second", "y")));
  model.module.to(at::kHalf);
  for (const char* norm : {"first", "second"}) model.module.attr(norm).toModule().attr("weight").toTensor().fill_(60000);
  expect_kept(model.module, {}, "second", Reason::folded_weight_not_finite, "parameters of the norm", with_rank(4));
}

}  // namespace
}  // namespace bnfold::test
