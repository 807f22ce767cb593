// What every operator with weights asks of them.
#include "rules/kernel_rule.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class KernelRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string conv(const std::string& weight, const std::string& bias = "None") {
    return fmt::format("y = torch.conv2d(x, {}, {}, [1, 1], [0, 0], [1, 1], 1)\nreturn {}", weight, bias,
                       batch_norm("norm", "y"));
  }

  static Model conv_then_norm(const at::Tensor& weight, int64_t channels = 4) {
    Model model;
    return model.parameter("conv.weight", weight).norm("norm", channels).forward(conv("self.conv.weight"));
  }

  static at::Tensor weight() { return at::randn({4, 3, 3, 3}, at::kDouble); }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(KernelRule, FoldsStaticWeights) {
  expect_folded(conv_then_norm(weight()).module, {x}, "norm", "conv");
}

TEST_F(KernelRule, DeclinesComputedWeights) {
  Model model;
  model.parameter("conv.weight", weight()).norm("norm", 4).forward(conv("self.conv.weight * x.mean()"));
  expect_kept(model.module, {x}, "norm", Reason::weight_not_static, "weight");
}

TEST_F(KernelRule, DeclinesComputedBiases) {
  Model model;
  model.parameter("conv.weight", weight()).parameter("conv.bias", at::randn({4}, at::kDouble)).norm("norm", 4);
  model.forward(conv("self.conv.weight", "self.conv.bias * x.mean()"));
  expect_kept(model.module, {x}, "norm", Reason::weight_not_static, "bias");
}

TEST_F(KernelRule, DeclinesWeightsWrittenInPlace) {
  Model model;
  model.parameter("conv.weight", weight()).norm("norm", 4);
  model.forward("self.conv.weight.mul_(0.5)\n" + conv("self.conv.weight"));
  expect_kept(model.module, {}, "norm", Reason::weight_not_static, "weight");
}

TEST_F(KernelRule, DeclinesWeightsAliasedByOneWrittenInPlace) {
  const at::Tensor shared = weight();
  Model model;
  model.parameter("conv.weight", shared).parameter("other.weight", shared).norm("norm", 4);
  model.forward("self.other.weight.mul_(0.5)\n" + conv("self.conv.weight"));
  expect_kept(model.module, {}, "norm", Reason::weight_not_static, "weight");
}

TEST_F(KernelRule, DeclinesComplexWeights) {
  expect_kept(conv_then_norm(at::randn({4, 3, 3, 3}, at::kComplexDouble)).module, {}, "norm", Reason::weight_dtype_unsupported);
}

TEST_F(KernelRule, DeclinesWeightsOnAnotherDevice) {
  expect_kept(conv_then_norm(at::empty({4, 3, 3, 3}, at::TensorOptions().dtype(at::kDouble).device(at::kMeta))).module, {},
              "norm", Reason::devices_differ, "meta");
}

TEST_F(KernelRule, DeclinesANormWiderThanTheWeights) {
  expect_kept(conv_then_norm(weight().to(at::kFloat)).module, {}, "norm", Reason::dtypes_differ);
}

TEST_F(KernelRule, FoldsAFloatNormIntoHalfWeights) {
  Model model = conv_then_norm(weight());
  model.module.attr("norm").toModule().to(at::kFloat);
  model.module.attr("conv").toModule().to(at::kHalf);
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(result.module.attr("conv").toModule().attr("bias").toTensor().scalar_type(), at::kHalf);
}

TEST_F(KernelRule, DeclinesAnotherNumberOfChannels) {
  expect_kept(conv_then_norm(weight(), 3).module, {}, "norm", Reason::channels_differ, "4 channels");
}

TEST_F(KernelRule, DeclinesWeightsThatWouldLeaveTheirRange) {
  Model model = conv_then_norm(weight() * 1000);
  model.module.to(at::kHalf);
  model.module.attr("norm").toModule().attr("weight").toTensor().fill_(60000);
  expect_kept(model.module, {}, "norm", Reason::folded_weight_not_finite, "Half");
}

TEST_F(KernelRule, GivesTheLayerABiasEvenWhereItIsZero) {
  Model model = conv_then_norm(weight());
  for (const char* name : {"bias", "running_mean"}) model.module.attr("norm").toModule().attr(name).toTensor().zero_();
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_F(KernelRule, NamesTheNewBiasAfterItsWeight) {
  Model model;
  model.parameter("kernel", weight()).norm("norm", 4).forward(conv("self.kernel"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "kernel");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"kernel", "kernel_bias"}));
}

}  // namespace
}  // namespace bnfold::test
