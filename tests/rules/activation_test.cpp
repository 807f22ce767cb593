// Activations that cut values off, each in every spelling, with scales of both signs and of zero.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

struct Spelling {
  std::string name;
  std::string call;  // of y
};

Model& with_positive_scale(Model& model) {
  tensor_of(model, "weight").abs_().add_(0.1);
  return model;
}

class ActivationRule : public ::testing::TestWithParam<Spelling> {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // x --> norm --> activation --> conv
  static Model before_conv(const std::string& call, int64_t padding = 0) {
    Model model;
    model.layer("conv", {5, 4, 3, 3}, 5).norm("norm", 4).parameter("slope", at::tensor({-0.3}, at::kDouble));
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), call, conv("conv", "y", padding)));
  }

  static Model in_channels_last(Model model) {
    const at::Tensor weight = model.module.attr("conv").toModule().attr("weight").toTensor();
    weight.set_data(weight.contiguous(at::MemoryFormat::ChannelsLast));
    return model;
  }

  // x --> conv --> activation --> norm
  static Model behind_conv(const std::string& call) {
    Model model;
    model.layer("conv", {5, 4, 3, 3}, 5).norm("norm", 5);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), call, batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble) * 2;
};

using BoundingRule = ActivationRule;

TEST_P(BoundingRule, BecomesABoundForEachChannel) {
  const FoldResult result = expect_folded(before_conv(GetParam().call).module, {x}, "norm", "conv");
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_P(BoundingRule, LeavesTheInputAlone) {
  FoldResult result = fold(before_conv(GetParam().call).module);
  const at::Tensor input = x.clone();
  result.module.forward({input});
  EXPECT_TRUE(at::equal(input, x));
}

TEST_P(BoundingRule, IsPassedByTheScaleWhereThePaddingTakesNoShift) {
  Model model = before_conv(GetParam().call, 1);
  expect_folded(without_shift(model).module, {x}, "norm", "conv");
}

TEST_P(BoundingRule, DeclinesAShiftWhereThePaddingTakesNone) {
  expect_stopped(before_conv(GetParam().call, 1).module, {x}, "norm", "forward", Reason::shift_at_padding);
}

TEST_P(BoundingRule, DeclinesToPassBackward) {
  expect_kept(behind_conv(GetParam().call).module, {x}, "norm", Reason::operator_not_affine, "cuts values off");
}

INSTANTIATE_TEST_SUITE_P(Spellings, BoundingRule,
                         ::testing::Values(Spelling{"relu", "torch.relu(y)"}, Spelling{"relu_in_place", "torch.relu_(y)"},
                                           Spelling{"relu6", "torch.relu6(y)"}, Spelling{"relu6_in_place", "torch.relu6_(y)"},
                                           Spelling{"hardtanh", "torch.hardtanh(y, -0.5, 1.5)"},
                                           Spelling{"hardtanh_in_place", "torch.hardtanh_(y, -0.5, 1.5)"},
                                           Spelling{"clamp", "torch.clamp(y, -0.7, 0.9)"},
                                           Spelling{"clamp_in_place", "torch.clamp_(y, -0.7, 0.9)"},
                                           Spelling{"clamp_from_below", "torch.clamp(y, min=-0.3)"},
                                           Spelling{"clamp_from_above", "torch.clamp(y, max=0.4)"},
                                           Spelling{"clamp_min", "torch.clamp_min(y, 0.2)"},
                                           Spelling{"clamp_max_in_place", "torch.clamp_max_(y, 0.2)"}),
                         [](const auto& test) { return test.param.name; });

// That every consumer knows, whatever the order in memory.
TEST_F(ActivationRule, BecomesMaximumAndMinimum) {
  const FoldResult result = fold(in_channels_last(before_conv("torch.relu_(y)")).module);
  EXPECT_EQ(count_nodes(result.module, "aten::maximum"), 1);
  EXPECT_EQ(count_nodes(result.module, "aten::minimum"), 1);
}

TEST_F(ActivationRule, BecomesOneOperatorInChannelsLastWhereLibTorchRunsIt) {
  const Model contiguous = before_conv("torch.relu(y)");
  EXPECT_EQ(count_nodes(bnfold::freeze(contiguous.module).module, "aten::clamp"), 0);
  const Model model = in_channels_last(before_conv("torch.relu(y)"));
  const FoldResult result = bnfold::freeze(model.module);
  EXPECT_EQ(count_nodes(result.module, "aten::clamp"), 1);
  EXPECT_EQ(count_nodes(result.module, "aten::maximum"), 0);
  expect_same_output(model.module, result.module, {x.contiguous(at::MemoryFormat::ChannelsLast)});
}

TEST_F(ActivationRule, PassesReluUnderPositiveScalesAsItIs) {
  Model model = before_conv("torch.relu(y)", 1);
  without_shift(with_positive_scale(model));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "aten::relu"), 1);
  EXPECT_EQ(count_nodes(result.module, "aten::maximum"), 0);
}

TEST_F(ActivationRule, PassesReluBackwardUnderPositiveScales) {
  Model model = behind_conv("torch.relu(y)");
  expect_folded(without_shift(with_positive_scale(model)).module, {x}, "norm", "conv");
}

TEST_F(ActivationRule, DeclinesReluBackwardUnderNegativeScales) {
  Model model = behind_conv("torch.relu(y)");
  expect_kept(without_shift(model).module, {x}, "norm", Reason::operator_not_affine, "cuts values off");
}

TEST_F(ActivationRule, FoldsZeroScalesOnly) {
  Model model = before_conv("torch.relu(y)");
  tensor_of(model, "weight").zero_();
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(ActivationRule, FoldsZeroScalesWithoutShift) {
  Model model = before_conv("torch.relu(y)");
  tensor_of(model, "weight").zero_();
  expect_folded(without_shift(model).module, {x}, "norm", "conv");
}

TEST_F(ActivationRule, DeclinesLimitsThatAreComputed) {
  const Model model = before_conv("torch.clamp(y, float(x.mean()), 5.0)");
  expect_stopped(model.module, {x}, "norm", "forward", Reason::operand_not_constant, "limits");
}

TEST_F(ActivationRule, DeclinesTensorsAsLimits) {
  const Model model = before_conv("torch.clamp(x, y, y + 1)");
  expect_stopped(model.module, {x}, "norm", "forward", Reason::operand_not_constant, "limits");
}

TEST_F(ActivationRule, BoundsOnceForSeveralReaders) {
  Model model;
  model.layer("conv1", {5, 4, 3, 3}, 5).layer("conv2", {5, 4, 3, 3}, 5).norm("norm", 4);
  model.forward(
      fmt::format("y = torch.relu({})\nreturn {} + {}", batch_norm("norm", "x"), conv("conv1", "y"), conv("conv2", "y")));
  const FoldResult result = fold(model.module);
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::maximum"), 1);
  expect_same_output(model.module, result.module, {x});
}

TEST_F(ActivationRule, TakesAReluInPlaceBehindAnotherReader) {
  Model model;
  model.layer("conv1", {5, 4, 3, 3}, 5).layer("conv2", {5, 4, 3, 3}, 5).norm("norm", 4);
  model.forward(
      fmt::format("y = {}\nz = {}\ny.relu_()\nreturn {} + z", batch_norm("norm", "x"), conv("conv1", "y"), conv("conv2", "y")));
  expect_folded(model.module, {x}, "norm", "conv1, conv2");
}

TEST_F(ActivationRule, DeclinesAReluInPlaceOfWhatAViewShows) {
  Model model;
  model.layer("conv1", {5, 4, 3, 3}, 5).norm("norm", 4);
  model.forward(
      fmt::format("y = {}\nz = y.view(-1)\ny.relu_()\nreturn {} + z.mean()", batch_norm("norm", "x"), conv("conv1", "y")));
  expect_kept(model.module, {x}, "norm", Reason::value_changed_in_place, "relu_");
}

TEST_F(ActivationRule, PartsScaleAndShiftBehindAMaximum) {
  Model model;
  model.layer("first", {4, 4, 3, 3}, 4).layer("conv", {5, 4, 3, 3}, 5).norm("norm", 4);
  tensor_of(model, "weight").copy_(at::tensor({-0.8, 0.9, -1.1, 0.7}, at::kDouble));
  model.forward(fmt::format("y = torch.max_pool2d({}, [2, 2], [1, 1], [1, 1], [1, 1], False)\ny = torch.relu({})\nreturn {}",
                            conv("first", "x"), batch_norm("norm", "y"), conv("conv", "y", 1)));
  const FoldResult result = expect_folded(model.module, {x}, "norm", "first, conv");
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(ActivationRule, KeepsAZeroScalesShiftOutOfThePadding) {
  Model model;
  model.layer("first", {4, 4, 3, 3}, 4).layer("conv", {5, 4, 3, 3}, 5).norm("norm", 4);
  model.forward(fmt::format("y = torch.max_pool2d({}, [2, 2], [1, 1], [1, 1], [1, 1], False)\ny = torch.relu({})\nreturn {}",
                            conv("first", "x"), batch_norm("norm", "y"), conv("conv", "y", 1)));
  expect_folded(model.module, {x}, "norm", "first, conv");
}

TEST_F(ActivationRule, MakesAChannelConstantWhoseBoundLeavesTheRange) {
  Model model = before_conv("torch.relu(y)");
  tensor_of(model, "weight").copy_(at::tensor({6e-5, -6e-5, 6e-5, -6e-5}, at::kDouble));
  tensor_of(model, "bias").copy_(at::tensor({-5.0, -5.0, 5.0, 5.0}, at::kDouble));
  tensor_of(model, "running_mean").zero_();
  tensor_of(model, "running_var").fill_(1);
  model.module.to(at::kHalf);
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(ActivationRule, DeclinesANormInAnotherDtypeThanItsInput) {
  Model model = before_conv("torch.relu(y)");
  model.module.attr("norm").toModule().to(at::kFloat);
  model.module.attr("conv").toModule().to(at::kHalf);
  expect_stopped(model.module, {}, "norm", "forward", Reason::dtypes_differ, "bound");
}

// first --> relu --> norm
Model two_norms(const std::string& input) {
  Model model;
  model.layer("conv", {4, 4, 1, 1}, 4).norm("first", 4).norm("norm", 4);
  return model.forward(fmt::format("y = torch.relu({})\nreturn {}", batch_norm("first", input), batch_norm("norm", "y")));
}

TEST_F(ActivationRule, BecomesABoundBetweenTwoNorms) {
  const FoldResult result = expect_folded(two_norms("torch.tanh(" + conv("conv", "x") + ")").module, {x}, "first", "norm");
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(ActivationRule, DeclinesABoundBetweenTwoNormsWhoseInputMayBeNarrower) {
  Model model = two_norms("x");
  model.module.to(at::kFloat);
  const FoldResult result = expect_stopped(model.module, {x}, "first", "forward", Reason::dtypes_differ);
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kHalf)}, 5e-3);
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kBFloat16)}, 4e-2);
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kFloat)}, 1e-5);
}

// linear --> `call` of y --> norm --> linear
Model between_linear_layers(const std::string& call, at::IntArrayRef bound) {
  Model model;
  model.layer("first", {8, 3}, 8).layer("linear", {5, 8}, 5).norm("norm", 8).parameter("bound", at::randn(bound, at::kDouble));
  return model.forward(
      fmt::format("y = torch.addmm(self.first.bias, x, self.first.weight.t())\ny = {}\n"
                  "return torch.linear({}, self.linear.weight, self.linear.bias)",
                  call, batch_norm("norm", "y")));
}

TEST_F(ActivationRule, KeepsTheRankWhereItsLimitsAreNumbers) {
  for (const char* call : {"torch.clamp(y, -0.3, 0.9)", "torch.clamp_max(y, 0.4)"}) {
    expect_folded(between_linear_layers(call, {8}).module, {at::randn({8, 3}, at::kDouble)}, "norm", "linear", with_rank(2));
  }
}

TEST_F(ActivationRule, DeclinesANormBehindLimitsThatHaveMoreDimensions) {
  const at::Tensor rows = at::randn({8, 3}, at::kDouble);
  const auto expect_along_another_dimension = [&](const char* call, at::IntArrayRef bound) {
    expect_stopped(between_linear_layers(call, bound).module, {rows}, "norm", "forward", Reason::affine_varies_elsewhere,
                   "dimension -1", with_rank(2));
  };
  for (const char* call : {"torch.clamp(y, min=self.bound)", "torch.clamp(y, max=self.bound)",
                           "torch.clamp(y, self.bound, self.bound + 1)", "torch.clamp_min(y, self.bound)"}) {
    expect_along_another_dimension(call, {1, 8, 1, 1});
  }
  expect_along_another_dimension("torch.clamp_max(y, self.bound)", {2, 8, 8});
}

TEST_F(ActivationRule, PassesLeakyReluUnderPositiveScalesWithoutShift) {
  for (const char* call : {"torch.leaky_relu(y, 0.1)", "torch.leaky_relu_(y, 0.1)", "torch.prelu(y, self.slope)"}) {
    Model model = before_conv(call, 1);
    expect_folded(without_shift(with_positive_scale(model)).module, {x}, "norm", "conv");
  }
}

TEST_F(ActivationRule, DeclinesLeakyReluUnderNegativeScales) {
  Model model = before_conv("torch.leaky_relu(y, 0.1)");
  expect_stopped(without_shift(model).module, {x}, "norm", "forward", Reason::scale_not_positive, "negative");
}

TEST_F(ActivationRule, DeclinesLeakyReluUnderAShift) {
  Model model = before_conv("torch.leaky_relu(y, 0.1)");
  expect_stopped(with_positive_scale(model).module, {x}, "norm", "forward", Reason::shift_not_passable, "slope");
}

TEST_F(ActivationRule, PassesLeakyReluBackward) {
  Model model = behind_conv("torch.leaky_relu(y, 0.1)");
  expect_folded(without_shift(with_positive_scale(model)).module, {x}, "norm", "conv");
}

TEST_F(ActivationRule, DeclinesLeakyReluBackwardUnderAShift) {
  Model model = behind_conv("torch.leaky_relu(y, 0.1)");
  expect_kept(with_positive_scale(model).module, {x}, "norm", Reason::shift_not_passable, "slope");
}

TEST_F(ActivationRule, LeavesTheInputOfALeakyReluInPlaceAlone) {
  Model model = before_conv("torch.leaky_relu_(y, 0.1)");
  without_shift(with_positive_scale(model));
  FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
  const at::Tensor input = x.clone();
  result.module.forward({input});
  EXPECT_TRUE(at::equal(input, x));
}

TEST_F(ActivationRule, TurnsTheSlopesOfPreluUnderNegativeScales) {
  for (const int64_t number : {1, 4}) {
    Model on;
    on.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4).parameter("slope", at::rand({number}, at::kDouble) + 0.2);
    on.forward(
        fmt::format("y = torch.prelu({}, self.slope)\nreturn {}", batch_norm("norm", "torch.tanh(x)"), conv("conv", "y", 1)));
    expect_folded(without_shift(on).module, {x}, "norm", "conv", with_rank(4));
    Model back;
    back.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4).parameter("slope", at::rand({number}, at::kDouble) + 0.2);
    back.forward(fmt::format("y = torch.prelu({}, self.slope)\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
    expect_folded(without_shift(back).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(ActivationRule, DeclinesPreluWhoseSlopesAreNotPositive) {
  for (const double slope : {0.0, -0.3, 1e-320}) {
    Model model;
    model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4).parameter("slope", at::full({4}, slope, at::kDouble));
    model.forward(fmt::format("y = torch.prelu({}, self.slope)\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
    tensor_of(model, "weight").copy_(at::tensor({0.5, -1.0, 2.0, 1.0}, at::kDouble));
    expect_kept(without_shift(model).module, {x}, "norm", Reason::scale_not_positive, "negative", with_rank(4));
  }
}

}  // namespace
}  // namespace bnfold::test
