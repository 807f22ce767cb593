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

  // Likewise, the norm itself.
  static Model before(const std::string& yes, const std::string& no, const std::string& end) {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(
        fmt::format("if bool(x.sum() > 0):\n  {}\nelse:\n  {}\nreturn {}{}", yes, no, batch_norm("norm", "y"), end));
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

// `y` is what conv1 made, unless the first branch makes something else of it.
class ValueBeforeTheBranch : public BranchRule {
 protected:
  static Model before(const std::string& statements) {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).layer("square", {4, 4, 1, 1}, 4).norm("norm", 4);
    return model.forward("y = " + conv("conv1", "x") + "\n" + statements);
  }

  static Model branch(const std::string& yes, const std::string& end = "") {
    return before(fmt::format("if bool(x.sum() > 0):\n  y = {}\nreturn {}{}", yes, batch_norm("norm", "y"), end));
  }

  void expect_folded_in_both(const Model& model, const std::string& into) const {
    for (const int64_t batch : {1, 2}) {
      for (const double sign : {1.0, -1.0}) {
        expect_folded(model.module, {at::rand({batch, 3, 6, 6}, at::kDouble) * sign}, "norm", into, with_rank(4));
      }
    }
  }
};

TEST_F(ValueBeforeTheBranch, GetsTheAffineForTheBranchThatReturnsIt) {
  expect_folded_in_both(branch(conv("conv2", "x")), "conv2, conv1");
}

TEST_F(ValueBeforeTheBranch, GetsTheAffineOnceWhereTheOtherBranchLetsItPass) {
  for (const char* yes :
       {"torch.dropout(y, 0.5, False)", "y.contiguous()", "y.clone()", "y[1:]", "torch.avg_pool2d(y, [2, 2])"}) {
    expect_folded_in_both(branch(yes), "conv1");
  }
}

TEST_F(ValueBeforeTheBranch, GetsTheWholeAffineWhereTheOtherBranchAddsToIt) {
  expect_folded_in_both(branch("y + " + conv("conv2", "x")), "conv2, conv1");
  Model model;
  model.layer("conv1", {4, 3, 3, 3}, 4).norm("norm", 4).parameter("position", at::randn({1, 4, 1, 1}, at::kDouble));
  model.forward(fmt::format("y = {}\nif bool(x.sum() > 0):\n  y = y + self.position\nreturn {}", conv("conv1", "x"),
                            batch_norm("norm", "y")));
  expect_folded_in_both(model, "conv1");
}

TEST_F(ValueBeforeTheBranch, DeclinesWhereTheOtherBranchMultipliesIt) {
  expect_kept(branch("y * 2.0").module, {x}, "norm", Reason::value_has_other_readers, "", with_rank(4));
}

TEST_F(ValueBeforeTheBranch, GetsTheAffineOfBothBranches) {
  const std::string both = "if bool(x.sum() > 0):\n  z = y\nelse:\n  z = y.clone()\nreturn " + batch_norm("norm", "z");
  expect_folded_in_both(before(both), "conv1");
}

TEST_F(ValueBeforeTheBranch, DeclinesWhereTheOtherBranchNeedsItAsItIs) {
  expect_kept(branch(conv("square", "y")).module, {x}, "norm", Reason::value_has_other_readers, "aten::conv2d", with_rank(4));
  expect_kept(branch("y.tanh()").module, {x}, "norm", Reason::operator_not_affine, "tanh", with_rank(4));
}

TEST_F(ValueBeforeTheBranch, DeclinesWhereTheOtherBranchWantsOtherChannels) {
  expect_kept(branch("y.flip([1])").module, {x}, "norm", Reason::value_has_other_readers, "", with_rank(4));
  expect_kept(branch("torch.channel_shuffle(y, 2)").module, {x}, "norm", Reason::value_has_other_readers, "", with_rank(4));
}

TEST_F(ValueBeforeTheBranch, DeclinesWhereItIsReadBehind) {
  const std::string behind = "if bool(x.sum() > 0):\n  z = {}\nelse:\n  z = y\nreturn {} + y.sum()";
  const Model model = before(fmt::format(fmt::runtime(behind), conv("conv2", "x"), batch_norm("norm", "z")));
  expect_kept(model.module, {x}, "norm", Reason::value_has_other_readers, "aten::sum", with_rank(4));
}

TEST_F(ValueBeforeTheBranch, DeclinesAnInputOfTheModule) {
  Model model;
  model.layer("square", {3, 3, 1, 1}, 3).norm("norm", 3);
  model.forward("y = x\nif bool(x.sum() > 0):\n  y = " + conv("square", "x") + "\nreturn " + batch_norm("norm", "y"));
  expect_kept(model.module, {x}, "norm", Reason::value_from_graph_input, "outside", with_rank(4));
}

// batch_norm lays out anew what the first branch permutes.
TEST_F(ValueBeforeTheBranch, KeepsTheOrderInMemory) {
  for (const double sign : {1.0, -1.0}) {
    expect_unharmed(branch("y.permute([0, 1, 3, 2])", ".view([-1])").module, {x * sign}, with_rank(4));
  }
}

TEST_F(BranchRule, MakesAContiguousCopyWhereBothBranchesPermute) {
  const std::string permuted = ".permute([0, 1, 3, 2])";
  const Model model = before("y = " + conv("conv1", "x") + permuted, "y = " + conv("conv2", "x") + permuted, ".view([-1])");
  for (const double sign : {1.0, -1.0}) expect_folded(model.module, {x * sign}, "norm", "conv2, conv1", with_rank(4));
}

TEST_F(BranchRule, DeclinesWhereOneBranchPermutes) {
  const std::string yes = "y = " + conv("conv1", "x") + ".permute([0, 1, 3, 2])";
  const Model model = before(yes, "y = " + conv("conv2", "x"), ".view([-1])");
  expect_stopped(model.module, {x}, "norm", "backward", Reason::memory_order_unknown);
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
