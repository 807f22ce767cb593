#include "algebra/kernel.h"

#include <gtest/gtest.h>

#include <limits>

#include "support/close.h"

namespace bnfold::algebra {
namespace {

using test::relative_error;

class KernelTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(11); }

  static at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); }

  at::Tensor scale = at::Tensor();
  at::Tensor shift = at::Tensor();

  void channels(int64_t count) {
    scale = random({count});
    shift = random({count});
  }
};

TEST_F(KernelTest, ConvolutionTakesScaleAndShift) {
  channels(6);
  const Kernel kernel{random({6, 2, 3, 3}), random({6}), KernelLayout::output_first, 2};
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  const at::Tensor x = random({2, 4, 7, 7});
  const at::Tensor expected =
      at::conv2d(x, kernel.weight, kernel.bias, 1, 1, 1, 2) * scale.view({1, 6, 1, 1}) + shift.view({1, 6, 1, 1});
  EXPECT_LE(relative_error(expected, at::conv2d(x, folded.weight, folded.bias, 1, 1, 1, 2)), 1e-12);
}

TEST_F(KernelTest, GroupedTransposedConvolutionTakesScaleAndShift) {
  channels(6);
  const Kernel kernel{random({4, 3, 3, 2}), random({6}), KernelLayout::input_first, 2};
  EXPECT_EQ(kernel.output_channels(), 6);
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  const at::Tensor x = random({2, 4, 5, 5});
  const auto run = [&](const Kernel& k) { return at::conv_transpose2d(x, k.weight, k.bias, 2, 1, 1, 2, 1); };
  const at::Tensor expected = run(kernel) * scale.view({1, 6, 1, 1}) + shift.view({1, 6, 1, 1});
  EXPECT_LE(relative_error(expected, run(folded)), 1e-12);
}

TEST_F(KernelTest, RightOperandOfMatmulTakesScale) {
  channels(5);
  const Kernel kernel{random({3, 5}), {}, KernelLayout::output_last, 1};
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  const at::Tensor x = random({4, 3});
  EXPECT_LE(relative_error(at::matmul(x, kernel.weight) * scale + shift, at::matmul(x, folded.weight) + folded.bias), 1e-12);
}

TEST_F(KernelTest, NegativeViewKeepsItsSign) {
  channels(4);
  const at::Tensor weight = random({4, 2});
  const Kernel folded = scale_and_shift_outputs({at::_neg_view(weight), {}, KernelLayout::output_first, 1}, scale, shift);
  EXPECT_LE(relative_error(-weight * scale.unsqueeze(1), folded.weight), 1e-15);
}

TEST_F(KernelTest, MissingBiasBecomesTheShift) {
  channels(4);
  const Kernel folded = scale_and_shift_outputs({random({4, 2}), {}, KernelLayout::output_first, 1}, scale, shift);
  EXPECT_TRUE(at::equal(folded.bias, shift));
}

TEST_F(KernelTest, RoundsOnceToTheWeightsDtype) {
  channels(4);
  const Kernel kernel{random({4, 8}).to(at::kHalf), random({4}).to(at::kHalf), KernelLayout::output_first, 1};
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  EXPECT_EQ(folded.weight.scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(folded.weight, (kernel.weight.to(at::kDouble) * scale.view({4, 1})).to(at::kHalf)));
  EXPECT_TRUE(at::equal(folded.bias, (kernel.bias.to(at::kDouble) * scale + shift).to(at::kHalf)));
}

TEST_F(KernelTest, KeepsTheMemoryFormat) {
  channels(4);
  const at::Tensor weight = random({4, 3, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
  const Kernel folded = scale_and_shift_outputs({weight, {}, KernelLayout::output_first, 1}, scale, shift);
  EXPECT_TRUE(folded.weight.is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_F(KernelTest, LeftRangeTellsOverflowInHalf) {
  const at::Tensor weight = at::full({2}, 1000, at::kHalf);
  EXPECT_TRUE(left_range(weight, (weight.to(at::kDouble) * 1000).to(at::kHalf)));
  EXPECT_FALSE(left_range(weight, weight * 2));
}

TEST_F(KernelTest, LeftRangeIsNotMisledByASumThatOverflows) {
  const at::Tensor weight = at::full({4}, 1e308, at::kDouble);
  EXPECT_FALSE(left_range(at::ones({4}, at::kDouble), weight));
}

TEST_F(KernelTest, LeftRangeForgivesWhatWasInfiniteBefore) {
  const at::Tensor weight = at::full({2}, std::numeric_limits<double>::infinity(), at::kDouble);
  EXPECT_FALSE(left_range(weight, weight * 2));
}

constexpr int64_t none = 0;  // of padding; a literal 0 could be a string as well

class KernelInputs : public KernelTest {
 protected:
  at::Tensor shifted(const at::Tensor& x) const {
    std::vector<int64_t> shape(x.dim(), 1);
    shape[1] = -1;
    return x * scale.view(shape) + shift.view(shape);
  }
};

TEST_F(KernelInputs, ConvolutionTakesScaleAndShift) {
  channels(4);
  const at::Tensor x = random({2, 4, 7, 7});
  for (const at::Tensor& bias : {random({6}), at::Tensor()}) {
    const Kernel kernel{random({6, 2, 3, 3}), bias, KernelLayout::output_first, 2};
    EXPECT_EQ(kernel.input_channels(), 4);
    const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
    const auto run = [](const Kernel& k, const at::Tensor& input) { return at::conv2d(input, k.weight, k.bias, 2, none, 2, 2); };
    EXPECT_LE(relative_error(run(kernel, shifted(x)), run(folded, x)), 1e-11);
  }
}

TEST_F(KernelInputs, DepthwiseConvolutionTakesScaleAndShift) {
  channels(4);
  const at::Tensor x = random({2, 4, 9});
  const Kernel kernel{random({8, 1, 3}), random({8}), KernelLayout::output_first, 4};
  const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
  const auto run = [](const Kernel& k, const at::Tensor& input) { return at::conv1d(input, k.weight, k.bias, 1, none, 1, 4); };
  EXPECT_LE(relative_error(run(kernel, shifted(x)), run(folded, x)), 1e-11);
}

TEST_F(KernelInputs, PaddedConvolutionTakesScaleAndGetsNoBias) {
  channels(4);
  shift.zero_();
  const at::Tensor x = random({2, 4, 7, 7});
  const Kernel kernel{random({6, 4, 3, 3}), {}, KernelLayout::output_first, 1};
  const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
  EXPECT_FALSE(folded.bias.defined());
  EXPECT_LE(relative_error(at::conv2d(shifted(x), kernel.weight, {}, 1, 1), at::conv2d(x, folded.weight, {}, 1, 1)), 1e-11);
}

TEST_F(KernelInputs, TransposedConvolutionTakesScale) {
  channels(4);
  shift.zero_();
  const at::Tensor x = random({2, 4, 5, 5});
  const Kernel kernel{random({4, 3, 3, 2}), random({6}), KernelLayout::input_first, 2};
  EXPECT_EQ(kernel.input_channels(), 4);
  const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
  const auto run = [](const Kernel& k, const at::Tensor& input) {
    return at::conv_transpose2d(input, k.weight, k.bias, 2, 1, 1, 2, 1);
  };
  EXPECT_LE(relative_error(run(kernel, shifted(x)), run(folded, x)), 1e-11);
}

TEST_F(KernelInputs, PointwiseTransposedConvolutionTakesScaleAndShift) {
  channels(4);
  const at::Tensor x = random({2, 4, 5, 5});
  for (const int64_t groups : {1, 2, 4}) {
    const Kernel kernel{random({4, 3, 1, 1}), random({3 * groups}), KernelLayout::input_first, groups};
    const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
    const auto run = [&](const Kernel& k, const at::Tensor& input) {
      return at::conv_transpose2d(input, k.weight, k.bias, 1, none, none, groups, 1);
    };
    EXPECT_LE(relative_error(run(kernel, shifted(x)), run(folded, x)), 1e-11);
  }
}

TEST_F(KernelInputs, LinearAndMatmulTakeScaleAndShift) {
  channels(4);
  const at::Tensor x = random({3, 4});
  const Kernel linear{random({6, 4}), random({6}), KernelLayout::output_first, 1};
  const Kernel folded = scale_and_shift_inputs(linear, scale, shift);
  const at::Tensor expected = at::linear(shifted(x), linear.weight, linear.bias);
  EXPECT_LE(relative_error(expected, at::linear(x, folded.weight, folded.bias)), 1e-12);
  const Kernel right =
      scale_and_shift_inputs({linear.weight.t().contiguous(), linear.bias, KernelLayout::output_last, 1}, scale, shift);
  EXPECT_LE(relative_error(expected, at::addmm(right.bias, x, right.weight)), 1e-12);
}

TEST_F(KernelInputs, OneScaleAndShiftServesAllChannels) {
  channels(1);
  const at::Tensor x = random({2, 4, 5, 5});
  const Kernel kernel{random({6, 2, 3, 3}), {}, KernelLayout::output_first, 2};
  const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
  const auto run = [](const Kernel& k, const at::Tensor& input) { return at::conv2d(input, k.weight, k.bias, 1, none, 1, 2); };
  EXPECT_LE(relative_error(run(kernel, shifted(x)), run(folded, x)), 1e-11);
  const Kernel behind = scale_and_shift_outputs(kernel, scale, shift);
  EXPECT_LE(relative_error(shifted(run(kernel, x)), run(behind, x)), 1e-11);
}

TEST_F(KernelInputs, LeaveTheWeightsThatCameInAlone) {
  channels(4);
  const Kernel kernel{random({4, 4, 3, 3}), random({4}), KernelLayout::output_first, 1};
  const at::Tensor weight = kernel.weight.clone();
  const at::Tensor bias = kernel.bias.clone();
  scale_and_shift_inputs(kernel, scale, shift);
  scale_and_shift_outputs(kernel, scale, shift);
  with_identity(kernel, scale, shift);
  EXPECT_TRUE(at::equal(kernel.weight, weight));
  EXPECT_TRUE(at::equal(kernel.bias, bias));
}

TEST_F(KernelInputs, RoundOnceToTheWeightsDtype) {
  channels(8);
  const Kernel kernel{random({4, 8}).to(at::kHalf), random({4}).to(at::kHalf), KernelLayout::output_first, 1};
  const Kernel folded = scale_and_shift_inputs(kernel, scale, shift);
  const at::Tensor weight = kernel.weight.to(at::kDouble);
  EXPECT_TRUE(at::equal(folded.weight, (weight * scale).to(at::kHalf)));
  EXPECT_LE(relative_error(at::mv(weight, shift) + kernel.bias.to(at::kDouble), folded.bias.to(at::kDouble)), 1e-3);
}

class KernelWithIdentity : public KernelInputs {
 protected:
  // kernel(x) + scale * x + shift
  void expect_identity(const Kernel& kernel, at::IntArrayRef padding, at::IntArrayRef dilation) {
    channels(4);
    const at::Tensor x = random({2, 4, 8, 8});
    const auto run = [&](const Kernel& k) { return at::conv2d(x, k.weight, k.bias, 1, padding, dilation, kernel.groups); };
    EXPECT_LE(relative_error(run(kernel) + shifted(x), run(with_identity(kernel, scale, shift))), 1e-11);
  }
};

TEST_F(KernelWithIdentity, AddsToTheTapInTheMiddle) {
  expect_identity({random({4, 4, 3, 3}), random({4}), KernelLayout::output_first, 1}, {1, 1}, {1, 1});
  expect_identity({random({4, 4, 5, 1}), random({4}), KernelLayout::output_first, 1}, {2, 0}, {1, 1});
  expect_identity({random({4, 4, 3, 3}), random({4}), KernelLayout::output_first, 1}, {2, 2}, {2, 2});
  expect_identity({random({4, 4, 1, 1}), {}, KernelLayout::output_first, 1}, {0, 0}, {1, 1});
}

TEST_F(KernelWithIdentity, FindsTheInputOfEachGroup) {
  expect_identity({random({4, 2, 3, 3}), random({4}), KernelLayout::output_first, 2}, {1, 1}, {1, 1});
  expect_identity({random({4, 1, 3, 3}), {}, KernelLayout::output_first, 4}, {1, 1}, {1, 1});
}

TEST_F(KernelWithIdentity, RoundsToTheDtypesOfWeightAndBias) {
  channels(4);
  const Kernel kernel{random({4, 4, 3, 3}).to(at::kHalf), random({4}).to(at::kFloat), KernelLayout::output_first, 1};
  const Kernel folded = with_identity(kernel, scale, shift);
  EXPECT_EQ(folded.weight.scalar_type(), at::kHalf);
  EXPECT_EQ(folded.bias.scalar_type(), at::kFloat);
}

}  // namespace
}  // namespace bnfold::algebra
