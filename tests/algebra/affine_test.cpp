#include "algebra/affine.h"

#include <gtest/gtest.h>

#include <limits>

namespace bnfold::algebra {
namespace {

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
  EXPECT_TRUE(at::allclose(applied(along_channels(of_norm(norm), 4), x), expected, 1e-13, 1e-13));
}

TEST_F(AffineTest, OfNormWithoutWeightAndBiasTakesOneAndZero) {
  norm.weight = norm.bias = at::Tensor();
  const at::Tensor x = random({2, 5});
  const at::Tensor expected = at::batch_norm(x, {}, {}, norm.mean, norm.variance, false, 0.1, norm.epsilon, false);
  EXPECT_TRUE(at::allclose(applied(along_channels(of_norm(norm), 2), x), expected, 1e-13, 1e-13));
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

}  // namespace
}  // namespace bnfold::algebra
