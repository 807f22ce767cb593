// The whole pipeline: sharing, several methods, repeated folds.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <torch/csrc/jit/serialization/import.h>
#include <sstream>

#include "support/close.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

class FoldBatchNorms : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string conv(const std::string& value, const std::string& layer = "conv") {
    return fmt::format("torch.conv2d({}, self.{}.weight, None, [1, 1], [1, 1], [1, 1], 1)", value, layer);
  }

  static Model conv_then_norm() {
    Model model;
    model.layer("conv", {3, 3, 3, 3}).norm("norm", 3);
    return model.forward("return " + batch_norm("norm", conv("x")));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(FoldBatchNorms, CountsParametersBuffersBytesAndNodes) {
  const Report report = fold(conv_then_norm().module).report;
  EXPECT_EQ(report.before.parameters, 81 + 6);
  EXPECT_EQ(report.after.parameters, 81 + 3);
  EXPECT_EQ(report.before.buffers, 6);
  EXPECT_EQ(report.after.buffers, 0);
  EXPECT_EQ(report.before.bytes, 8 * (81 + 6 + 6));
  EXPECT_EQ(report.after.bytes, 8 * (81 + 3));
  EXPECT_EQ(report.after.nodes - report.before.nodes, 4 - 1);  // a check of the rank for the norm
}

TEST_F(FoldBatchNorms, GivesAConvThatIsCalledTwiceAWeightForEachNorm) {
  Model model;
  model.layer("conv", {3, 3, 3, 3}).norm("norm1", 3).norm("norm2", 3);
  model.forward("y = " + batch_norm("norm1", conv("x")) + "\nreturn " + batch_norm("norm2", conv("torch.relu(y)")));
  const FoldResult result = expect_folded(model.module, {x}, "norm2", "conv");
  EXPECT_EQ(result.report.folded.size(), 2U);
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias", "conv.weight_1", "conv.bias_1"}));
  EXPECT_GT(result.report.after.parameters, result.report.before.parameters);
}

TEST_F(FoldBatchNorms, KeepsATrainingNormWhoseOutputNobodyReads) {
  Model model;
  model.layer("conv", {3, 3, 3, 3}).norm("norm", 3).norm("trained", 3);
  model.forward("y = " + conv("x") + "\n" + batch_norm("trained", "x", true) + "\nreturn " + batch_norm("norm", "y"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 1);
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(result.report.kept[0].reason, Reason::norm_in_training_mode);
}

TEST_F(FoldBatchNorms, DropsANormWhoseOutputNobodyReads) {
  Model model;
  model.layer("conv", {3, 3, 3, 3}).norm("norm", 3).norm("unread", 3);
  model.forward("y = " + conv("x") + "\n" + batch_norm("unread", "x") + "\nreturn " + batch_norm("norm", "y"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
  EXPECT_TRUE(result.report.kept.empty());
}

TEST_F(FoldBatchNorms, KeepsOneWeightWhereTheNormIsTheSameToo) {
  Model model;
  model.layer("conv", {3, 3, 3, 3}).norm("norm", 3);
  model.forward("y = " + batch_norm("norm", conv("x")) + "\nreturn " + batch_norm("norm", conv("torch.relu(y)")));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_F(FoldBatchNorms, LeavesAWeightToItsOtherReader) {
  Model model;
  model.layer("conv", {3, 3, 3, 3}).norm("norm", 3);
  model.forward("y = " + batch_norm("norm", conv("x")) + "\nreturn " + conv("torch.relu(y)"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.weight_1", "conv.bias"}));
}

TEST_F(FoldBatchNorms, LeavesATiedWeightToItsOtherLayer) {
  Model model;
  const at::Tensor weight = at::randn({3, 3, 3, 3}, at::kDouble);
  model.parameter("conv.weight", weight).parameter("other.weight", weight).norm("norm", 3);
  model.forward("y = " + batch_norm("norm", conv("x")) + "\nreturn " + conv("torch.relu(y)", "other"));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias", "other.weight"}));
}

TEST_F(FoldBatchNorms, FoldsEveryMethodThatNoOtherCalls) {
  Model model = conv_then_norm();
  model.define("def encode(self, x):\n  return torch.relu(" + batch_norm("norm", conv("x")) + ")\n");
  FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
  const at::Tensor expected = model.module.get_method("encode")({x}).toTensor();
  EXPECT_LE(relative_error(expected, result.module.get_method("encode")({x}).toTensor()), 1e-10);
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

TEST_F(FoldBatchNorms, LeavesAWeightToAnotherMethod) {
  Model model = conv_then_norm();
  model.define("def raw(self, x):\n  return " + conv("x") + "\n");
  FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_TRUE(at::equal(result.module.get_method("raw")({x}).toTensor(), model.module.get_method("raw")({x}).toTensor()));
}

TEST_F(FoldBatchNorms, ChangesNothingTheSecondTime) {
  const FoldResult once = fold(conv_then_norm().module);
  const FoldResult twice = fold(once.module);
  EXPECT_TRUE(twice.report.folded.empty());
  EXPECT_EQ(twice.report.before.parameters, twice.report.after.parameters);
  EXPECT_EQ(twice.report.before.nodes, twice.report.after.nodes);
  expect_same_output(once.module, twice.module, {x});
}

TEST_F(FoldBatchNorms, FoldsAFrozenModule) {
  Model model = conv_then_norm();
  model.module.register_attribute("training", c10::BoolType::get(), false);
  const jit::Module frozen = jit::freeze(model.module, {}, /*optimize_numerics=*/false);
  const FoldResult result = fold(frozen);
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(result.report.before.parameters, 81 + 4 * 3);
  EXPECT_EQ(result.report.after.parameters, 81 + 3);
  expect_same_output(model.module, result.module, {x});
}

TEST_F(FoldBatchNorms, SurvivesSavingAndLoading) {
  const Model model = conv_then_norm();
  std::stringstream file;
  fold(model.module).module.save(file);
  const jit::Module loaded = jit::load(file);
  expect_same_output(model.module, loaded, {x});
  EXPECT_EQ(state_names(loaded), (std::vector<std::string>{"conv.weight", "conv.bias"}));
}

// A product with a matrix at the root, which gets a bias, beside a method of this name.
Model root_with_method(const std::string& name) {
  Model model;
  model.parameter("weight", at::randn({3, 4}, at::kDouble)).norm("norm", 4);
  model.forward("return " + batch_norm("norm", "torch.mm(x, self.weight)"));
  return model.define("def " + name + "(self, x):\n  return x * 2\n");
}

TEST_F(FoldBatchNorms, NamesABiasOfTheRootAfterItsWeight) {
  const FoldResult result = expect_folded(root_with_method("twice").module, {at::randn({5, 3}, at::kDouble)}, "norm", "weight");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"weight", "bias"}));
}

TEST_F(FoldBatchNorms, GivesABiasAnotherNameThanAMethod) {
  const Model model = root_with_method("bias");
  const at::Tensor rows = at::randn({5, 3}, at::kDouble);
  const FoldResult result = expect_folded(model.module, {rows}, "norm", "weight");
  ASSERT_EQ(state_names(result.module).size(), 2U);
  EXPECT_NE(state_names(result.module)[1], "bias");
  std::stringstream file;
  result.module.save(file);
  const jit::Module loaded = jit::load(file);
  expect_same_output(model.module, loaded, {rows});
  EXPECT_TRUE(at::equal(loaded.get_method("bias")({rows}).toTensor(), rows * 2));
}

// norm --> conv
Model norm_then_conv() {
  Model model;
  model.layer("conv", {5, 3, 1, 1}, 5).norm("norm", 3);
  return model.forward("return " + test::conv("conv", batch_norm("norm", "x")));
}

TEST_F(FoldBatchNorms, LeavesTheDtypesOfTheOriginalWhereTheResultIsCast) {
  for (const bool shifts : {true, false}) {
    Model model = norm_then_conv();
    if (!shifts) without_shift(model);
    FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
    result.module.to(at::kHalf);
    for (const at::Tensor& tensor : model.module.parameters()) EXPECT_EQ(tensor.scalar_type(), at::kDouble) << shifts;
    for (const at::Tensor& tensor : model.module.buffers()) EXPECT_EQ(tensor.scalar_type(), at::kDouble) << shifts;
  }
}

TEST_F(FoldBatchNorms, CanBePutIntoEvalModeAndFrozen) {
  const Model model = conv_then_norm();
  jit::Module folded = fold(model.module).module;
  folded.eval();
  const jit::Module frozen = jit::freeze(folded);
  expect_same_output(model.module, frozen, {x});
}

TEST_F(FoldBatchNorms, RefusesAModuleInTrainingMode) {
  Model model = conv_then_norm();
  model.module.register_attribute("training", c10::BoolType::get(), true);
  try {
    fold(model.module);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the module is in training mode; call .eval() on it before folding");
  }
}

}  // namespace
}  // namespace bnfold::test
