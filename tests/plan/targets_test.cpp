// What a fold is made for decides what pays and what may be asked as the module runs.
#include "plan/targets.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

#include "bnfold/bnfold.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class Targets : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(31); }

  static Options made_for(Target target) {
    Options options = with_rank(4);
    options.target = target;
    return options;
  }

  static Model linear_and_norm() {
    Model model;
    model.layer("linear", {4, 5}, 4).norm("norm", 4);
    return model.forward("return " + batch_norm("norm", "torch.linear(x, self.linear.weight, self.linear.bias)"));
  }

  // y, which two read, --> norm --> activation, where there is one --> conv
  static Model ahead(const std::string& activation = "") {
    Model model;
    model.layer("conv", {5, 8, 3, 3}, 5).norm("norm", 8);
    return model.forward("y = torch.cat([x, 2 * x], 1)\nreturn " +
                         conv("conv", activation + "(" + batch_norm("norm", "y") + ")") + ", y");
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

TEST_F(Targets, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const Target target : all_targets()) {
    names.insert(name(target));
    EXPECT_EQ(target_named(name(target)), target);
  }
  EXPECT_FALSE(target_named("tensorrt"));
  EXPECT_EQ(names.size(), all_targets().size());
  EXPECT_EQ(name(Options().target), "libtorch");
}

TEST_F(Targets, FoldNothingThatWouldBeCheckedAndIsNot) {
  const at::Tensor matrix = at::randn({3, 5}, at::kDouble);
  Options options;
  for (const Target target : all_targets()) {
    if (target == Target::libtorch) continue;
    options.target = target;
    expect_kept(linear_and_norm().module, {matrix}, "norm", Reason::rank_unknown, "example inputs tell it", options);
    Options told = options;
    told.input_ranks = {2};
    const FoldResult result = expect_folded(linear_and_norm().module, {matrix}, "norm", "linear", told);
    EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 0);
  }
  const FoldResult result = expect_folded(linear_and_norm().module, {matrix}, "norm", "linear");
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 1);
}

TEST_F(Targets, QuantizationTakesWhatMakesTheValueAlone) {
  Model model;
  model.layer("conv", {5, 4, 3, 3}, 5).norm("norm", 5);
  model.forward("return torch.relu(" + batch_norm("norm", conv("conv", "x")) + ")");
  expect_folded(model.module, {x}, "norm", "conv", made_for(Target::quantization));
  expect_folded(ahead().module, {x}, "norm", "conv", with_rank(4));
  expect_stopped(ahead().module, {x}, "norm", "forward", Reason::widens_channels, "", made_for(Target::quantization));
}

TEST_F(Targets, QuantizationMergesNoConvolutions) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).layer("other", {4, 4, 1, 1}, 4);
  model.forward("return " + conv("conv", "x", 1) + " + " + conv("other", "x"));
  EXPECT_EQ(fold(model.module).report.merged.size(), 1U);
  EXPECT_EQ(fold(model.module, made_for(Target::quantization)).report.merged.size(), 0U);
}

// There a norm and its ReLU are one depthwise convolution, and bounds are steps of their own.
TEST_F(Targets, OnnxRuntimeKeepsANormThatWouldBecomeABound) {
  expect_folded(ahead("torch.relu").module, {x}, "norm", "conv", made_for(Target::openvino));
  expect_kept(ahead("torch.relu").module, {x}, "norm", Reason::cheaper_kept, "onnxruntime", made_for(Target::onnxruntime));
  expect_folded(ahead().module, {x}, "norm", "conv", made_for(Target::onnxruntime));
}

TEST_F(Targets, NcnnTakesABoundOnOneSide) {
  Model model = ahead("torch.relu");
  tensor_of(model, "weight").abs_();
  expect_folded(model.module, {x}, "norm", "conv", made_for(Target::ncnn));
  expect_kept(ahead("torch.relu").module, {x}, "norm", Reason::cheaper_kept, "ncnn", made_for(Target::ncnn));
}

}  // namespace
}  // namespace bnfold::test
