// A layer that takes a norm in multiplies before the mean is taken off.
#include <gtest/gtest.h>

#include <string>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

const std::string kNormal = batch_norm("norm", "x");

class LargeMean : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // The mean is `times` the deviation, which the norm makes 1.
  static Model with_mean_of(double times, const std::string& result, at::ScalarType dtype) {
    Model model;
    model.layer("stem", {4, 4, 1, 1}, 4).layer("conv", {4, 4, 1, 1}, 4).norm("norm", 4);
    model.forward("return " + result);
    tensor_of(model, "weight").fill_(1);
    tensor_of(model, "bias").zero_();
    tensor_of(model, "running_mean").fill_(times);
    tensor_of(model, "running_var").fill_(1 - 1e-5);
    model.module.to(dtype);
    return model;
  }

  static bool folds(double times, const std::string& result, at::ScalarType dtype) {
    return fold(with_mean_of(times, result, dtype).module).report.kept.empty();
  }

  const at::Tensor x = at::randn({2, 4, 6, 5}, at::kDouble);
};

TEST_F(LargeMean, FoldsForwardWhatIsNotRoundedCoarsely) {
  for (const std::string& result :
       {conv("conv", kNormal), conv("conv", "torch.relu(" + kNormal + ")"), kNormal + " + " + conv("conv", "x")}) {
    for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
      EXPECT_TRUE(folds(15, result, dtype)) << result << ", " << toString(dtype);
      EXPECT_FALSE(folds(18, result, dtype)) << result << ", " << toString(dtype);
    }
    EXPECT_TRUE(folds(-1000, result, at::kFloat)) << result;
    EXPECT_FALSE(folds(-1100, result, at::kFloat)) << result;
    EXPECT_TRUE(folds(1e6, result, at::kDouble)) << result;
  }
  expect_stopped(with_mean_of(18, conv("conv", kNormal), at::kHalf).module, {x}, "norm", "forward", Reason::mean_too_large,
                 "18 times");
}

TEST_F(LargeMean, FoldsBackwardWhateverTheMean) {
  const std::string behind_stem = batch_norm("norm", conv("stem", "x"));
  EXPECT_TRUE(folds(1000, behind_stem, at::kHalf));
  EXPECT_TRUE(folds(1000, conv("conv", "torch.relu(" + behind_stem + ")"), at::kHalf));
}

// The mean is taken off before the pooling, whose negative scales go on.
TEST_F(LargeMean, FoldsForwardWhereTheShiftGoesBack) {
  const std::string result = conv("conv", batch_norm("norm", "torch.max_pool2d(" + conv("stem", "x") + ", [2, 2])"));
  Model model = with_mean_of(1000, result, at::kHalf);
  tensor_of(model, "weight").fill_(-1);
  EXPECT_TRUE(fold(model.module).report.kept.empty());
  tensor_of(model, "weight").select(0, 1).zero_();
  tensor_of(model, "bias").fill_(1);
  EXPECT_TRUE(fold(model.module).report.kept.empty());
}

TEST_F(LargeMean, FoldsANormIntoANorm) {
  Model two;
  two.norm("norm", 4).norm("norm2", 4).forward("return " + batch_norm("norm2", kNormal));
  tensor_of(two, "running_mean").fill_(1e6);
  two.module.to(at::kFloat);
  EXPECT_EQ(fold(two.module).report.kept.size(), 1U);
}

// One channel among others that cancel nothing adds little to what a layer makes.
TEST_F(LargeMean, TakesTheMeanOverTheChannels) {
  Model model = with_mean_of(0, conv("conv", kNormal), at::kHalf);
  tensor_of(model, "running_mean").select(0, 1).fill_(30);  // sqrt(30^2 / 4) = 15
  EXPECT_TRUE(fold(model.module).report.kept.empty());
  tensor_of(model, "running_mean").select(0, 1).fill_(36);
  EXPECT_FALSE(fold(model.module).report.kept.empty());
}

TEST_F(LargeMean, FoldsAChannelThatIsTheSameEverywhere) {
  Model model = with_mean_of(1, conv("conv", kNormal), at::kHalf);
  tensor_of(model, "running_var").zero_();
  EXPECT_FALSE(fold(model.module).report.kept.empty());  // a deviation of sqrt(eps), and nothing that the norm adds
  tensor_of(model, "bias").fill_(100);
  EXPECT_TRUE(fold(model.module).report.kept.empty());
  tensor_of(model, "weight").zero_();
  EXPECT_TRUE(fold(model.module).report.kept.empty());
}

}  // namespace
}  // namespace bnfold::test
