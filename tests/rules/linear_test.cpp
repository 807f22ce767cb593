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
  expect_kept(model.module, {at::randn({2, 5, 5}, at::kDouble)}, "norm", Reason::channels_differ, "don't fit");
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

class LinearForward : public LinearRule {
 protected:
  static Model norm_then_linear(int64_t bias_channels, const std::string& between = "y") {
    Model model;
    model.layer("linear", {5, 3}, bias_channels).norm("norm", 3);
    const std::string bias = bias_channels > 0 ? "self.linear.bias" : "None";
    return model.forward(
        fmt::format("y = {}\ny = {}\nreturn torch.linear(y, self.linear.weight, {})", batch_norm("norm", "x"), between, bias));
  }
};

TEST_F(LinearForward, AbsorbsTheNormBeforeIt) {
  const FoldResult result = expect_folded(norm_then_linear(5).module, {matrix}, "norm", "linear");
  EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
}

TEST_F(LinearForward, AbsorbsTheNormBeforeItWithoutABias) {
  const FoldResult result = expect_folded(norm_then_linear(0).module, {matrix}, "norm", "linear");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "linear.bias"}));
}

TEST_F(LinearForward, AbsorbsTheNormOfTransposedSequences) {
  expect_folded(norm_then_linear(5, "y.transpose(1, 2)").module, {at::randn({2, 3, 7}, at::kDouble)}, "norm", "linear",
                with_rank(3));
}

TEST_F(LinearForward, DeclinesANormAlongTheSequence) {
  expect_stopped(norm_then_linear(5).module, {at::randn({2, 3, 3}, at::kDouble)}, "norm", "forward",
                 Reason::affine_varies_elsewhere, "dimension -1 of the input", with_rank(3));
}

TEST_F(LinearForward, DeclinesANormThatIsAnOutputToo) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(fmt::format("y = {}\nreturn torch.linear(y, self.linear.weight, None), y", batch_norm("norm", "x")));
  expect_stopped(model.module, {matrix}, "norm", "forward", Reason::value_in_container, "tuple");
}

TEST_F(LinearForward, DeclinesANormThatIsReturned) {
  Model model;
  model.norm("norm", 3).forward("return " + batch_norm("norm", "x"));
  expect_stopped(model.module, {matrix}, "norm", "forward", Reason::value_is_output);
}

TEST_F(LinearForward, DeclinesANormThatGoesIntoAList) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("l = [{}]\nif bool(x.sum() > -1000):\n  l.append(x)\nreturn torch.linear(l[0], self.linear.weight, None)",
                  batch_norm("norm", "x")));
  expect_stopped(model.module, {matrix}, "norm", "forward", Reason::value_in_container);
}

TEST_F(LinearForward, FoldsWhereTheNormsInputIsWrittenInPlaceBeforeTheLayer) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(fmt::format("u = torch.tanh(x)\ny = {}\nu.add_(1.0)\nreturn torch.linear(y, self.linear.weight, None).sum() + u",
                            batch_norm("norm", "u")));
  expect_folded(model.module, {matrix}, "norm", "linear");
}

TEST_F(LinearForward, FoldsWhereTheNormsInputIsWrittenInPlaceBehindTheLayer) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\ny = {}\nz = torch.linear(y, self.linear.weight, None)\nu.add_(1.0)\nreturn z.sum() + u",
                  batch_norm("norm", "u")));
  expect_folded(model.module, {matrix}, "norm", "linear");
}

TEST_F(LinearForward, DeclinesWhereAViewOfTheNormsInputIsWrittenInPlace) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\nv = u.t()\ny = {}\nv.add_(1.0)\nreturn torch.linear(y, self.linear.weight, None).sum() + u",
                  batch_norm("norm", "u")));
  expect_kept(model.module, {matrix}, "norm", Reason::value_changed_in_place, "aten::add_");
}

TEST_F(LinearForward, DoesNoHarmWhereTheNormsInputIsAPartOfWhatIsWritten) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\na, b = torch.chunk(u, 2, 1)\ny = {}\nu.add_(1.0)\n"
                  "return torch.linear(y, self.linear.weight, None).sum() + u",
                  batch_norm("norm", "a")));
  expect_unharmed(model.module, {at::randn({4, 6}, at::kDouble)});
}

TEST_F(LinearForward, DoesNoHarmWhereTheNormsInputIsWhatABranchReturned) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\nif bool(x.sum() > -1000):\n  a = u\nelse:\n  a = u * 2\ny = {}\nu.add_(1.0)\n"
                  "return torch.linear(y, self.linear.weight, None).sum() + u",
                  batch_norm("norm", "a")));
  expect_unharmed(model.module, {matrix});
}

TEST_F(LinearForward, DoesNoHarmWhereTheNormsInputIsAnElementOfAList) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\nl = [u, u * 2]\na = l[x.size(0) - 4]\ny = {}\nu.add_(1.0)\n"
                  "return torch.linear(y, self.linear.weight, None).sum() + u",
                  batch_norm("norm", "a")));
  expect_unharmed(model.module, {matrix});
}

TEST_F(LinearForward, DoesNoHarmWhereALoopWritesTheNormsInputBehindTheLayer) {
  Model model;
  model.layer("linear", {3, 3}).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\ny = {}\nout = torch.zeros_like(u)\nfor i in range(x.size(0)):\n"
                  "  out = out + torch.linear(y, self.linear.weight, None)\n  u.add_(1.0)\nreturn out + u",
                  batch_norm("norm", "u")));
  expect_unharmed(model.module, {matrix});
}

TEST_F(LinearForward, DeclinesWhereTheNormsInputIsABufferThatIsWritten) {
  Model model;
  model.layer("linear", {5, 3}).norm("norm", 3).buffer("state", at::randn({4, 3}, at::kDouble));
  model.forward(fmt::format("y = {}\nself.state.mul_(0.5)\nreturn torch.linear(y, self.linear.weight, None) + x.sum()",
                            batch_norm("norm", "self.state")));
  EXPECT_EQ(fold(model.module).report.folded.size(), 0U);
}

TEST_F(LinearForward, DeclinesWhereTheNormIsItsBias) {
  Model model;
  model.layer("linear", {3, 3}).norm("norm", 3);
  model.forward("return torch.linear(torch.tanh(x), self.linear.weight, " + batch_norm("norm", "torch.sigmoid(x[:1])") + ")");
  expect_stopped(model.module, {at::randn({4, 3}, at::kDouble)}, "norm", "forward", Reason::weight_not_static, "weight or bias",
                 with_rank(2));
}

}  // namespace
}  // namespace bnfold::test
