#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class SliceRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // y is the norm of x, conv1 with 2 inputs and conv2 with 3 of its parts
  static Model before(const std::string& statements) {
    Model model;
    model.layer("conv1", {4, 2, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).layer("conv5", {4, 5, 3, 3}, 4).norm("norm", 5);
    return model.forward(fmt::format("y = {}\n{}", batch_norm("norm", "x"), statements));
  }

  static int64_t folded(const Model& model, const at::Tensor& x) {
    return static_cast<int64_t>(expect_unharmed(model.module, {x}).report.folded.size());
  }

  const at::Tensor x = at::randn({2, 5, 6, 6}, at::kDouble);
};

TEST_F(SliceRule, CutsTheAffine) {
  const std::string sum = " + " + conv("conv1", "b");
  EXPECT_EQ(folded(before("a = y[:, :3]\nb = y[:, 3:]\nreturn " + conv("conv2", "a") + sum), x), 1);
  EXPECT_EQ(folded(before("a = y[:, 1:-1]\nb = y[:, -2:100]\nreturn " + conv("conv2", "a") + sum), x), 1);
}

TEST_F(SliceRule, PassesACutOfOtherDimensions) {
  EXPECT_EQ(folded(before("return " + conv("conv5", "y[:, :, 1:, :-1]")), x), 1);
  EXPECT_EQ(folded(before("return " + conv("conv5", "y[:, :, ::2]")), x), 1);
}

TEST_F(SliceRule, DeclinesEverySecondChannel) {
  expect_stopped(before("return " + conv("conv2", "y[:, ::2]")).module, {x}, "norm", "forward", Reason::operand_not_constant,
                 "cut");
}

TEST_F(SliceRule, DeclinesACutThatIsComputed) {
  expect_stopped(before("return " + conv("conv2", "y[:, x.size(0):]")).module, {x}, "norm", "forward",
                 Reason::operand_not_constant, "cut");
}

TEST_F(SliceRule, DeclinesToGoBackBehindACut) {
  Model model;
  model.layer("conv", {5, 5, 3, 3}, 5).norm("norm", 3);
  model.forward(fmt::format("y = {}[:, :3]\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::no_rule_for_operator, "aten::slice");
}

TEST_F(SliceRule, GivesEachPieceItsPart) {
  const std::string convs = "return " + conv("conv2", "a") + " + " + conv("conv1", "b");
  EXPECT_EQ(folded(before("a, b = torch.chunk(y, 2, 1)\n" + convs), x), 1);
  EXPECT_EQ(folded(before("a, b = torch.split(y, 3, 1)\n" + convs), x), 1);
  EXPECT_EQ(folded(before("a, b = torch.split_with_sizes(y, [3, 2], -3)\n" + convs), x), 1);
}

TEST_F(SliceRule, GivesEachPieceItsPartOfASplitWithSizes) {
  const std::string convs = "return " + conv("conv2", "a") + " + " + conv("conv1", "b");
  EXPECT_EQ(folded(before("a, b = torch.split(y, [3, 2], 1)\n" + convs), x), 1);
}

TEST_F(SliceRule, PutsThePiecesTogetherInAnotherOrder) {
  EXPECT_EQ(folded(before("a, b = torch.chunk(y, 2, 1)\nreturn " + conv("conv5", "torch.cat([b, a], 1)")), x), 1);
}

TEST_F(SliceRule, PassesPiecesOfOtherDimensions) {
  EXPECT_EQ(folded(before("a, b = torch.chunk(y, 2, 2)\nreturn " + conv("conv5", "a") + " + " + conv("conv5", "b")), x), 1);
}

TEST_F(SliceRule, DeclinesWhereOnePieceGoesElsewhere) {
  expect_stopped(before("a, b = torch.chunk(y, 2, 1)\nreturn " + conv("conv2", "a") + ", b").module, {x}, "norm", "forward",
                 Reason::value_in_container);
}

TEST_F(SliceRule, DeclinesAListThatIsKept) {
  expect_stopped(before("l = torch.chunk(y, 2, 1)\nreturn " + conv("conv2", "l[0]")).module, {x}, "norm", "forward",
                 Reason::value_in_container, "taken apart");
}

TEST_F(SliceRule, DeclinesALengthThatIsComputed) {
  expect_stopped(
      before("a, b = torch.split(y, x.size(0) + 1, 1)\nreturn " + conv("conv2", "a") + " + " + conv("conv1", "b")).module, {x},
      "norm", "forward", Reason::sizes_unknown, "number of channels");
}

}  // namespace
}  // namespace bnfold::test
