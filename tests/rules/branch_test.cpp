#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class BranchRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // The norm of what a condition returns; a convolution behind it tells the rank.
  static Model behind(const std::string& yes, const std::string& no, const std::string& behind = "") {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).layer("last", {4, 4, 1, 1}, 4).norm("norm", 4);
    return model.forward(fmt::format("if bool(x.sum() > 0):\n  {}\nelse:\n  {}\ny = torch.sigmoid({})\nreturn {}{}", yes, no,
                                     batch_norm("norm", "y"), conv("last", "y"), behind));
  }

  const at::Tensor x = at::rand({2, 3, 6, 6}, at::kDouble);
};

TEST_F(BranchRule, GivesBothBranchesTheAffine) {
  const Model model = behind("y = " + conv("conv1", "x"), "y = torch.dropout(" + conv("conv2", "x") + ", 0.5, False)");
  expect_folded(model.module, {x}, "norm", "conv2, conv1");
  expect_folded(model.module, {-x}, "norm", "conv2, conv1");
}

TEST_F(BranchRule, DeclinesWhereOneBranchHasNoLayer) {
  const Model model = behind("y = " + conv("conv1", "x"), "y = torch.sigmoid(" + conv("conv2", "x") + ")");
  expect_kept(model.module, {x}, "norm", Reason::operator_not_affine, "sigmoid");
}

TEST_F(BranchRule, DeclinesWhereABranchReturnsWhatWasComputedBeforeIt) {
  Model model;
  model.layer("conv1", {4, 3, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).layer("last", {4, 4, 1, 1}, 4).norm("norm", 4);
  model.forward(fmt::format("u = {}\nif bool(x.sum() > 0):\n  y = {}\nelse:\n  y = u\ny = torch.sigmoid({})\nreturn {}",
                            conv("conv1", "x"), conv("conv2", "x"), batch_norm("norm", "y"), conv("last", "y")));
  expect_kept(model.module, {x}, "norm", Reason::value_from_other_block, "before it");
}

TEST_F(BranchRule, DeclinesWhereTheResultHasAnotherReader) {
  const Model model =
      behind("y = " + conv("conv1", "x") + "\n  z = y.sum()", "y = " + conv("conv2", "x") + "\n  z = x.sum()", " + z");
  expect_kept(model.module, {x}, "norm", Reason::value_has_other_readers, "aten::sum");
}

TEST_F(BranchRule, DoesNoHarmWhereABranchReturnsItsLayerTwice) {
  const Model model = behind("y = " + conv("conv1", "x") + "\n  z = y",
                             "y = " + conv("conv2", "x") + "\n  z = " + conv("conv2", "x * 2"), " + z");
  expect_unharmed(model.module, {x});
}

TEST_F(BranchRule, PassesNestedConditions) {
  const Model model =
      behind("if bool(x.mean() > 1):\n    y = " + conv("conv1", "x") + "\n  else:\n    y = " + conv("conv1", "x * 2"),
             "y = " + conv("conv2", "x"));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 1U);
}

}  // namespace
}  // namespace bnfold::test
