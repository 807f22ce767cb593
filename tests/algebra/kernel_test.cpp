#include "algebra/kernel.h"

#include <gtest/gtest.h>

#include <limits>

namespace bnfold::algebra {
namespace {

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
  EXPECT_TRUE(at::allclose(at::conv2d(x, folded.weight, folded.bias, 1, 1, 1, 2), expected, 1e-12, 1e-12));
}

TEST_F(KernelTest, GroupedTransposedConvolutionTakesScaleAndShift) {
  channels(6);
  const Kernel kernel{random({4, 3, 3, 2}), random({6}), KernelLayout::input_first, 2};
  EXPECT_EQ(kernel.output_channels(), 6);
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  const at::Tensor x = random({2, 4, 5, 5});
  const auto run = [&](const Kernel& k) { return at::conv_transpose2d(x, k.weight, k.bias, 2, 1, 1, 2, 1); };
  const at::Tensor expected = run(kernel) * scale.view({1, 6, 1, 1}) + shift.view({1, 6, 1, 1});
  EXPECT_TRUE(at::allclose(run(folded), expected, 1e-12, 1e-12));
}

TEST_F(KernelTest, RightOperandOfMatmulTakesScale) {
  channels(5);
  const Kernel kernel{random({3, 5}), {}, KernelLayout::output_last, 1};
  const Kernel folded = scale_and_shift_outputs(kernel, scale, shift);
  const at::Tensor x = random({4, 3});
  EXPECT_TRUE(
      at::allclose(at::matmul(x, folded.weight) + folded.bias, at::matmul(x, kernel.weight) * scale + shift, 1e-12, 1e-12));
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

TEST_F(KernelTest, LeftRangeForgivesWhatWasInfiniteBefore) {
  const at::Tensor weight = at::full({2}, std::numeric_limits<double>::infinity(), at::kDouble);
  EXPECT_FALSE(left_range(weight, weight * 2));
}

}  // namespace
}  // namespace bnfold::algebra
