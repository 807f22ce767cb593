#include "algebra/affine.h"

#include <gtest/gtest.h>

#include <limits>

#include "support/close.h"

namespace bnfold::algebra {
namespace {

using test::relative_error;

class AffineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(7);
    norm = {random(5), random(5), random(5), at::rand({5}, at::kDouble) + 0.1, 1e-3};
  }

  static at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); }

  static at::Tensor applied(const Affine& affine, const at::Tensor& x) { return affine.scale * x + affine.shift; }

  NormParameters norm;
};

TEST_F(AffineTest, OfNormIsWhatBatchNormComputes) {
  const at::Tensor x = random({2, 5, 3, 4});
  const at::Tensor expected =
      at::batch_norm(x, norm.weight, norm.bias, norm.mean, norm.variance, false, 0.1, norm.epsilon, false);
  EXPECT_LE(relative_error(expected, applied(along_channels(of_norm(norm), 4), x)), 1e-13);
}

TEST_F(AffineTest, OfNormWithoutWeightAndBiasTakesOneAndZero) {
  norm.weight = norm.bias = at::Tensor();
  const at::Tensor x = random({2, 5});
  const at::Tensor expected = at::batch_norm(x, {}, {}, norm.mean, norm.variance, false, 0.1, norm.epsilon, false);
  EXPECT_LE(relative_error(expected, applied(along_channels(of_norm(norm), 2), x)), 1e-13);
}

TEST_F(AffineTest, OfNormComputesInDoubleWhateverTheDtype) {
  norm.weight = norm.weight.to(at::kHalf);
  EXPECT_EQ(along_channels(of_norm(norm), 4).scale.scalar_type(), at::kDouble);
  EXPECT_EQ(along_channels(of_norm(norm), 4).shift.scalar_type(), at::kDouble);
}

TEST_F(AffineTest, VariesOnlyAlongItsChannels) {
  const Affine affine = along_channels(of_norm(norm), 4);
  EXPECT_TRUE(affine.varies_only_along(1));
  EXPECT_TRUE(affine.varies_only_along(-3));
  EXPECT_FALSE(affine.varies_only_along(-1));
  EXPECT_EQ(affine.size_along(1), 5);
  EXPECT_EQ(affine.size_along(3), 1);
}

TEST_F(AffineTest, IsFiniteTellsInfiniteShifts) {
  EXPECT_TRUE(is_finite(along_channels(of_norm(norm), 2)));
  norm.mean[2] = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(is_finite(along_channels(of_norm(norm), 2)));
}

TEST_F(AffineTest, IsFiniteTellsNegativeVariances) {
  norm.variance[0] = -1;
  EXPECT_FALSE(is_finite(along_channels(of_norm(norm), 2)));
}

TEST_F(AffineTest, BeforePermuteActsAsTheValueDoes) {
  const Affine behind = along_channels(of_norm(norm), 4);
  const at::Tensor x = random({3, 4, 2, 5});
  const std::vector<int64_t> order = {2, 3, 0, 1};
  const at::Tensor expected = applied(behind, x.permute(order));
  EXPECT_TRUE(at::equal(applied(before_permute(behind, order), x).permute(order), expected));
}

TEST_F(AffineTest, BeforeFlattenActsAsTheValueDoes) {
  const Affine behind = along_channels(of_norm(norm), 2);
  const at::Tensor x = random({2, 3, 5});
  const auto before = before_flatten(behind, 0, 1);
  ASSERT_TRUE(before.has_value());
  EXPECT_TRUE(at::equal(applied(*before, x).flatten(0, 1), applied(behind, x.flatten(0, 1))));
}

TEST_F(AffineTest, BeforeFlattenDeclinesWhereTheChannelsAreFlattened) {
  EXPECT_FALSE(before_flatten(along_channels(of_norm(norm), 2), 1, 2).has_value());
}

TEST_F(AffineTest, BehindPermuteActsAsTheValueDoes) {
  const Affine before = along_channels(of_norm(norm), 4);
  const at::Tensor x = random({3, 5, 2, 4});
  const std::vector<int64_t> order = {2, 3, 0, 1};
  const Affine behind = behind_permute(before, order);
  EXPECT_TRUE(at::equal(applied(behind, x.permute(order)), applied(before, x).permute(order)));
  EXPECT_TRUE(at::equal(before_permute(behind, order).scale, before.scale));
}

TEST_F(AffineTest, BroadcastsToARankFromTheBack) {
  const Affine affine = broadcast_to_rank(of_norm(norm), 3);
  EXPECT_EQ(affine.scale.sizes(), (std::vector<int64_t>{1, 1, 5}));
  EXPECT_EQ(broadcast_to_rank(along_channels(of_norm(norm), 4), 2).rank(), 4);
}

TEST_F(AffineTest, ComposedActsOneAfterTheOther) {
  const Affine first{random({5}), random({5})};
  const Affine then{random({5}), random({5})};
  const at::Tensor x = random({2, 5});
  EXPECT_LE(relative_error(applied(then, applied(first, x)), applied(composed(first, then), x)), 1e-13);
}

TEST_F(AffineTest, InverseTakesItBack) {
  const Affine affine{random({5}), random({5})};
  const at::Tensor x = random({2, 5});
  EXPECT_LE(relative_error(x, applied(inverse(affine), applied(affine, x))), 1e-11);
}

TEST_F(AffineTest, ScaleOnlyAndShiftOnlyMakeTheWhole) {
  const Affine affine{random({5}), random({5})};
  const Affine whole = composed(scale_only(affine), shift_only(affine));
  EXPECT_TRUE(at::equal(whole.scale, affine.scale));
  EXPECT_TRUE(at::equal(whole.shift, affine.shift));
  EXPECT_FALSE(has_shift(scale_only(affine)));
  EXPECT_FALSE(has_scale(shift_only(affine)));
  EXPECT_TRUE(has_scale(affine));
  EXPECT_TRUE(has_shift(affine));
}

TEST_F(AffineTest, TellsZeroAndNegativeScales) {
  Affine affine{at::tensor({1.0, 2.0}, at::kDouble), at::tensor({0.0, -1.0}, at::kDouble)};
  EXPECT_TRUE(is_monotonic(affine));
  EXPECT_FALSE(has_zero_scale(affine));
  affine.scale[0] = 0;
  EXPECT_TRUE(is_monotonic(affine));
  EXPECT_TRUE(has_zero_scale(affine));
  affine.scale[1] = -2;
  EXPECT_FALSE(is_monotonic(affine));
}

TEST_F(AffineTest, BehindSplitActsAsTheValueDoes) {
  const Affine before{random({1, 6, 1}), random({1, 1, 1})};
  const Affine behind = behind_split(before, 1, {2, 3});
  const at::Tensor x = random({4, 6, 5});
  EXPECT_TRUE(at::equal(applied(behind, x.view({4, 2, 3, 5})), applied(before, x).view({4, 2, 3, 5})));
}

TEST_F(AffineTest, BehindMergeActsAsTheValueDoes) {
  const Affine before{random({1, 3, 1, 1}), random({1, 1, 1, 1})};
  const Affine behind = behind_merge(before, 1, {3, 4, 5});
  EXPECT_EQ(behind.scale.sizes(), (std::vector<int64_t>{1, 60}));
  const at::Tensor x = random({2, 3, 4, 5});
  EXPECT_TRUE(at::equal(applied(behind, x.flatten(1)), applied(before, x).flatten(1)));
}

TEST_F(AffineTest, BehindMergeKeepsWhatIsConstant) {
  const Affine before{random({1, 3, 1, 1}), random({1, 3, 1, 1})};
  EXPECT_EQ(behind_merge(before, 2, {1, 1}).scale.sizes(), (std::vector<int64_t>{1, 3, 1}));
}

TEST_F(AffineTest, DropsAndAddsDimensions) {
  const Affine affine{random({1, 3, 1}), random({1, 1, 1})};
  EXPECT_EQ(without_dimension(affine, 2).scale.sizes(), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(with_dimension(affine, 1).scale.sizes(), (std::vector<int64_t>{1, 1, 3, 1}));
}

TEST_F(AffineTest, PartActsAsTheValueDoes) {
  const Affine affine{random({1, 6, 1}), random({1, 1, 1})};
  const at::Tensor x = random({2, 6, 3});
  EXPECT_TRUE(at::equal(applied(part(affine, 1, 2, 3), x.narrow(1, 2, 3)), applied(affine, x).narrow(1, 2, 3)));
}

TEST_F(AffineTest, AsPartActsAsTheValueDoes) {
  const Affine affine{random({1, 2, 1}), random({1, 1, 1})};
  const at::Tensor x = random({2, 2, 3});
  const at::Tensor before = random({2, 1, 3});
  const at::Tensor behind = random({2, 4, 3});
  const Affine whole = as_part(affine, 1, 1, 2, 7);
  EXPECT_TRUE(at::equal(applied(whole, at::cat({before, x, behind}, 1)), at::cat({before, applied(affine, x), behind}, 1)));
}

}  // namespace
}  // namespace bnfold::algebra
