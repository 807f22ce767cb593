// Conditions whose branches are one norm.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class NormOfBranches : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string instance_norm(const std::string& value) {
    return fmt::format(
        "torch.instance_norm({}, self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var, False, 0.1, "
        "1e-05, True)",
        value);
  }

  // y is conv of x; what the branches return goes through `behind`
  static Model branches(const std::string& condition, const std::string& yes, const std::string& no,
                        const std::string& behind = "torch.tanh(z)") {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).layer("last", {5, 4, 1, 1}, 5).norm("norm", 4).norm("other", 4);
    return model.forward(
        fmt::format("y = {}\nif {}:\n  {}\nelse:\n  {}\nreturn {}", conv("conv", "x"), condition, yes, no, behind));
  }

  static Model scripted_instance_norm(const std::string& behind = "torch.tanh(z)") {
    return branches("y.dim() == 3", "z = " + instance_norm("y.unsqueeze(0)") + ".squeeze(0)", "z = " + instance_norm("y"),
                    behind);
  }

  // the norm as it is written out, with `end` behind its shift
  static std::string by_hand(const std::string& norm, const std::string& end = "") {
    return fmt::format(
        "scale = self.{0}.weight * (self.{0}.running_var + 1e-5).rsqrt()\n  shift = self.{0}.bias - self.{0}.running_mean * "
        "scale\n"
        "  z = y * scale.reshape([1, -1, 1, 1]) + (shift{1}).reshape([1, -1, 1, 1])",
        norm, end);
  }

  void expect_two_norms(const Model& model) const { EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 0U); }

  const std::string norm = "z = " + batch_norm("norm", "y");
  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(NormOfBranches, FoldsAScriptedInstanceNorm) {
  const FoldResult result = expect_folded(scripted_instance_norm().module, {x}, "norm", "conv");
  EXPECT_EQ(count_nodes(result.module, "aten::instance_norm"), 0);
  EXPECT_EQ(result.report.folded.size(), 1U);
}

TEST_F(NormOfBranches, FoldsItForwardWithBoundsOfItsOwn) {
  Model model;
  model.layer("last", {5, 4, 1, 1}, 5).norm("norm", 4);
  model.forward(fmt::format("y = torch.sigmoid(x)\nif y.dim() == 3:\n  z = {}.squeeze(0)\nelse:\n  z = {}\nreturn {}",
                            instance_norm("y.unsqueeze(0)"), instance_norm("y"), conv("last", "torch.relu(z)")));
  EXPECT_EQ(expect_unharmed(model.module, {at::randn({2, 4, 6, 6}, at::kDouble)}).report.folded.size(), 1U);
}

TEST_F(NormOfBranches, FoldsWhereTheOtherBranchComesFirst) {
  const Model model = branches("y.dim() != 3", "z = " + instance_norm("y"), "z = y");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(NormOfBranches, FoldsAnotherNormInTheOtherBranch) {
  Model model;
  model.layer("linear", {4, 4}, 4).norm("norm", 4).norm("other", 4);
  model.forward(fmt::format("if x.dim() == 2:\n  z = {}\nelse:\n  z = {}\nreturn z",
                            batch_norm("other", "torch.linear(x, self.linear.weight, self.linear.bias)"),
                            batch_norm("norm", "x")));
  const FoldResult result = expect_folded(model.module, {at::randn({3, 4}, at::kDouble)}, "other", "linear");
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(result.report.kept[0].name, "norm");
}

TEST_F(NormOfBranches, DropsTheOtherBranchWithItsNorm) {
  const Model model = branches("y.dim() == 2", "z = " + batch_norm("other", "y"), "z = " + batch_norm("norm", "y"));
  EXPECT_EQ(expect_folded(model.module, {x}, "norm", "conv").report.kept.size(), 0U);
}

// Those before it are gone by the time the condition is folded, and must not be asked what stood in its branches.
TEST_F(NormOfBranches, FoldsAConditionBehindNormsThatAreFolded) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).layer("last", {4, 4, 1, 1}, 4).norm("norm", 4);
  for (int i = 0; i < 8; ++i) model.norm(fmt::format("first{}", i), 4);
  std::string text = fmt::format("y = {}\n", conv("conv", "x"));
  for (int i = 0; i < 8; ++i) text += fmt::format("y = {}\n", batch_norm(fmt::format("first{}", i), "y"));
  text += fmt::format("y = {}\nif y.dim() == 3:\n  z = {}.squeeze(0)\nelse:\n  z = {}\nreturn z", conv("last", "torch.tanh(y)"),
                      instance_norm("y.unsqueeze(0)"), instance_norm("y"));
  EXPECT_EQ(expect_folded(model.forward(text).module, {x}, "norm", "last").report.folded.size(), 9U);
}

TEST_F(NormOfBranches, ChecksTheRankThatTakesTheNorm) {
  const FoldResult result = fold(scripted_instance_norm().module);
  EXPECT_THROW(torch::jit::Module(result.module).forward({x[0]}), std::exception);
}

TEST_F(NormOfBranches, DeclinesWhereTheRankTakesTheOtherBranch) {
  Model model;
  model.norm("norm", 4);
  model.forward(fmt::format("y = torch.sigmoid(x)\nif y.dim() == 3:\n  z = {}.squeeze(0)\nelse:\n  z = {}\nreturn z",
                            instance_norm("y.unsqueeze(0)"), instance_norm("y")));
  expect_kept(model.module, {at::randn({4, 6, 6}, at::kDouble)}, "norm", Reason::rank_unknown, "other ranks", with_rank(3));
}

TEST_F(NormOfBranches, DeclinesWhereTheRankOfAnotherValueDecides) {
  Model model = branches("x.dim() == 3", "z = y", "z = " + instance_norm("y"));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 0U);
}

TEST_F(NormOfBranches, FoldsBranchesThatAreOneAffine) {
  expect_folded(branches("y.requires_grad", by_hand("norm"), norm).module, {x}, "norm", "conv");
  expect_folded(branches("not y.requires_grad", norm, by_hand("norm")).module, {x}, "norm", "conv");
  expect_folded(branches("y.requires_grad", by_hand("norm", ".to(y.dtype)"), norm).module, {x}, "norm", "conv");
  expect_folded(branches("bool(x.sum() > 0)", norm, norm).module, {x}, "norm", "conv");
}

TEST_F(NormOfBranches, FoldsWhereTheResultIsOverwritten) {
  for (const char* const behind : {"torch.relu_(z)", "z.add_(torch.tanh(z))"}) {
    expect_folded(branches("y.requires_grad", by_hand("norm"), norm, behind).module, {x}, "norm", "conv");
  }
  expect_two_norms(branches("y.requires_grad", by_hand("norm"), norm, "torch.relu_(z) + torch.tanh(y)"));
}

TEST_F(NormOfBranches, KeepsWhatOverwritesAValueFromOutsideOrOneThatOthersHold) {
  for (const at::Tensor& image : {x.abs(), -x.abs()}) {
    expect_unharmed(branches("bool(x.sum() > 0)", norm, "z = y", "torch.relu_(z) + torch.tanh(y)").module, {image});
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    model.forward("held: List[Tensor] = []\ny = " + conv("conv", "x") + "\nif bool(x.sum() > 0):\n  " + norm +
                  "\n  held.append(z)\nelse:\n  " + norm + "\n  held.append(y)\nreturn torch.relu_(z) * 2.0 + held[0]");
    expect_unharmed(model.module, {image});
  }
}

TEST_F(NormOfBranches, DeclinesBranchesThatAreTwoAffines) {
  expect_two_norms(branches("y.requires_grad", by_hand("norm", " + 1e-3"), norm));
  expect_two_norms(branches("y.requires_grad", by_hand("other"), norm));
  expect_two_norms(branches("y.requires_grad", by_hand("norm", ".to(torch.frexp(y)[0].dtype)"), norm));
  expect_two_norms(branches("y.requires_grad", "z = torch.tanh(y)", norm));
}

TEST_F(NormOfBranches, DeclinesBranchesThatDoMore) {
  expect_two_norms(branches("y.requires_grad", by_hand("norm") + "\n  assert bool(x.sum() < 1e9)", norm));
  expect_two_norms(branches("y.requires_grad", by_hand("norm") + "\n  x.add_(1)", norm));
}

TEST_F(NormOfBranches, DeclinesBranchesThatReadTwoValues) {
  expect_two_norms(branches("y.requires_grad", "z = " + batch_norm("norm", "y * y"), norm));
}

TEST_F(NormOfBranches, DeclinesAConstantOfAnotherRankThanTheInputs) {
  expect_kept(branches("y.requires_grad", by_hand("norm"), norm).module, {}, "norm", Reason::rank_unknown, "", with_rank(3));
}

}  // namespace
}  // namespace bnfold::test
