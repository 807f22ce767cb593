// What the planner asks of the values between a layer and its norm.
#include "plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class Planner : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string conv(const std::string& value = "x") {
    return fmt::format("torch.conv2d({}, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1)", value);
  }

  static Model with(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
    return model.forward(statements);
  }

  static std::string norm(const std::string& value = "y") { return batch_norm("norm", value); }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(Planner, FoldsWhereTheNormIsTheOnlyReader) {
  expect_folded(with("y = " + conv() + "\nreturn " + norm()).module, {x}, "norm", "conv");
}

TEST_F(Planner, ReadsOfRankSizeAndDtypeDoNotCount) {
  const Model model =
      with("y = " + conv() + "\nassert y.dim() == 4\nz = " + norm() + "\nreturn z * y.size(1) * float(y.is_floating_point())");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesWhereSomethingElseReadsTheValue) {
  expect_kept(with("y = " + conv() + "\nreturn " + norm() + " + y").module, {x}, "norm", Reason::value_has_other_readers,
              "aten::add");
}

TEST_F(Planner, DeclinesWhereTheValueIsReturned) {
  expect_kept(with("y = " + conv() + "\nreturn " + norm() + ", y").module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(Planner, DeclinesWhereTheValueIsWrittenInPlace) {
  const Model model = with("y = " + conv() + "\ny.mul_(x.mean())\nreturn " + norm());
  expect_kept(model.module, {x}, "norm", Reason::value_changed_in_place, "aten::mul_");
}

TEST_F(Planner, FoldsWhereTheNormsOutputIsWrittenInPlace) {
  expect_folded(with("y = " + conv() + "\nz = " + norm() + "\nz.relu_()\nreturn z").module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesANormOfTheInput) {
  expect_kept(with("return " + conv(batch_norm("norm", "x")).replace(0, 0, "")).module, {}, "norm",
              Reason::value_from_graph_input);
}

TEST_F(Planner, FoldsANormInABranchOfALayerOutside) {
  const Model model = with("y = " + conv() + "\nif bool(x.sum() > 0):\n  z = " + norm() + "\nelse:\n  z = x\nreturn z");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesANormInABranchOfALayerThatTheOtherBranchReads) {
  const Model model = with("y = " + conv() + "\nif bool(x.sum() > 0):\n  z = " + norm() + "\nelse:\n  z = y\nreturn z");
  expect_kept(model.module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(Planner, FoldsInsideABranch) {
  const Model model = with("if bool(x.sum() > 0):\n  y = " + conv() + "\n  z = " + norm() + "\nelse:\n  z = x\nreturn z");
  expect_folded(model.module, {x.abs()}, "norm", "conv");
}

TEST_F(Planner, FoldsInsideALoop) {
  const Model model = with("z = x\nfor i in range(x.size(0)):\n  y = " + conv() + "\n  z = " + norm() + ".relu_()\nreturn z");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesALoopThatWouldWriteIntoTheLayersOutput) {
  const Model model =
      with("y = " + conv() + "\nz = x.sum()\nfor i in range(x.size(0)):\n  z = z + " + norm() + ".add_(1.0).sum()\nreturn z");
  expect_kept(model.module, {x}, "norm", Reason::value_from_other_block);
}

TEST_F(Planner, DeclinesAnOperatorWithoutARule) {
  expect_kept(with("y = torch.sigmoid(" + conv() + ")\nreturn " + norm()).module, {x}, "norm", Reason::no_rule_for_operator,
              "aten::sigmoid");
}

TEST_F(Planner, FoldsTwoNormsInARow) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).norm("norm1", 4).norm("norm2", 4);
  model.forward("y = " + conv() + "\ny = " + batch_norm("norm1", "y") + "\nreturn " + batch_norm("norm2", "y"));
  const FoldResult result = expect_folded(model.module, {x}, "norm2", "conv");
  EXPECT_EQ(result.report.folded.size(), 2U);
}

}  // namespace
}  // namespace bnfold::test
