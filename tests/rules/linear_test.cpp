#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class LinearRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model linear_then_norm(int64_t bias_channels = 5) {
    Model model;
    model.layer("linear", {5, 3}, bias_channels).norm("norm", 5);
    const std::string bias = bias_channels > 0 ? "self.linear.bias" : "None";
    return model.forward(fmt::format("y = torch.linear(x, self.linear.weight, {})\nreturn {}", bias, batch_norm("norm", "y")));
  }

  static Options with_rank(int64_t rank) {
    Options options;
    options.input_ranks = {rank};
    return options;
  }

  const at::Tensor matrix = at::randn({4, 3}, at::kDouble);
  const at::Tensor sequences = at::randn({4, 5, 3}, at::kDouble);  // as long as there are features
};

TEST_F(LinearRule, AbsorbsTheNormBehindIt) {
  expect_folded(linear_then_norm().module, {matrix}, "norm", "linear");
}

TEST_F(LinearRule, AbsorbsTheNormBehindItWithoutABias) {
  const FoldResult result = expect_folded(linear_then_norm(0).module, {matrix}, "norm", "linear");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "linear.bias"}));
}

TEST_F(LinearRule, DeclinesForSequencesWhoseNormWorksAlongTheirLength) {
  expect_kept(linear_then_norm().module, {sequences}, "norm", Reason::affine_varies_elsewhere, "", with_rank(3));
}

TEST_F(LinearRule, ChecksTheRankWhereNothingProvesIt) {
  FoldResult result = expect_folded(linear_then_norm().module, {matrix}, "norm", "linear");
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 1);
  try {
    result.module.forward({sequences});
    FAIL() << "a wrong result came out";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("inputs of rank 2"), std::string::npos) << error.what();
  }
}

TEST_F(LinearRule, DeclinesAVectorAsWeight) {
  Model model;
  model.layer("linear", {5})
      .norm("norm", 5)
      .forward("y = torch.linear(x, self.linear.weight, None)\nreturn " + batch_norm("norm", "y"));
  expect_kept(model.module, {at::randn({2, 5, 5}, at::kDouble)}, "norm", Reason::channels_differ, "1 channels");
}

TEST_F(LinearRule, ChecksNoRankThatIsProven) {
  Model model;
  model.layer("linear", {5, 3})
      .norm("norm", 5)
      .forward("y = torch.linear(x.flatten(1), self.linear.weight, None)\nreturn " + batch_norm("norm", "y"));
  const FoldResult result = expect_folded(model.module, {at::randn({4, 3, 1}, at::kDouble)}, "norm", "linear");
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 0);
}

TEST_F(LinearRule, ChecksTheRankOnceForAChain) {
  Model model;
  model.layer("first", {5, 3})
      .norm("norm1", 5)
      .layer("second", {4, 5})
      .norm("norm2", 4)
      .forward(fmt::format("y = torch.linear(x, self.first.weight, None)\ny = torch.relu({})\n"
                           "y = torch.linear(y, self.second.weight, None)\nreturn {}",
                           batch_norm("norm1", "y"), batch_norm("norm2", "y")));
  const FoldResult result = expect_folded(model.module, {matrix}, "norm2", "second");
  EXPECT_EQ(result.report.folded.size(), 2U);
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 1);
}

}  // namespace
}  // namespace bnfold::test
