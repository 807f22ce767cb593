#include "bnfold/graphviz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/model.h"

namespace bnfold::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string picture_of(const Model& model) {
  return to_graphviz(model.module, fold(model.module));
}

Model conv_and_norm() {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  return model;
}

const std::string kConv = "y = " + conv("conv", "x") + "\n";

TEST(Graphviz, DrawsTheLayersBeforeAndAfter) {
  const std::string picture = picture_of(conv_and_norm().forward(kConv + "return " + batch_norm("norm", "y")));
  EXPECT_THAT(picture, HasSubstr("1 of 1 norms folded"));
  EXPECT_THAT(picture, HasSubstr("before_0 [label = \"x\", shape = ellipse]"));
  EXPECT_THAT(picture, HasSubstr("before_1 [label = \"conv2d\\nconv\""));
  EXPECT_THAT(picture, HasSubstr("before_2 [label = \"batch_norm\\nnorm\", style = filled"));
  EXPECT_THAT(picture, HasSubstr("before_0 -> before_1;"));
  EXPECT_THAT(picture, HasSubstr("before_1 -> before_2;"));
  EXPECT_THAT(picture, HasSubstr("before_2 -> before_1 [style = dashed"));
  EXPECT_THAT(picture, HasSubstr("after_1 [label = \"conv2d\\nconv\", color"));
  EXPECT_THAT(picture, HasSubstr("after_2 [label = \"output\""));
}

TEST(Graphviz, TellsWhyANormWasKept) {
  const std::string picture =
      picture_of(conv_and_norm().forward(kConv + "return torch.tanh(" + batch_norm("norm", "torch.tanh(y)") + ")"));
  EXPECT_THAT(picture, HasSubstr("0 of 1 norms folded"));
  EXPECT_THAT(picture, HasSubstr("after_3 [label = \"batch_norm\\nnorm\\noperator_not_affine\", style = filled"));
  EXPECT_THAT(picture, Not(HasSubstr("dashed")));
}

TEST(Graphviz, DrawsWhereAMergedConvolutionWent) {
  Model model;
  model.layer("large", {4, 3, 3, 3}, 4)
      .layer("small", {4, 3, 1, 1}, 4)
      .forward("return " + conv("large", "x", 1) + " + " + conv("small", "x"));
  const std::string picture = picture_of(model);
  EXPECT_THAT(picture, HasSubstr("merged"));
  EXPECT_THAT(picture, HasSubstr("before_2 -> before_1 [style = dashed"));
}

TEST(Graphviz, LooksThroughListsBranchesAndLoops) {
  const std::string picture = picture_of(conv_and_norm().forward(kConv + "if bool(x.sum() > 0):\n"
                                                                         "    z = torch.tanh(y)\n"
                                                                         "else:\n"
                                                                         "    z = torch.exp(y)\n"
                                                                         "for i in range(int(x.size(0))):\n"
                                                                         "    z = torch.sin(z)\n"
                                                                         "return torch.cat([y, z], 1)"));
  // Of x, 0, come conv2d, 1, the sum and the comparison in the condition, tanh, 4, exp, 5, sin, 6, and cat, 7.
  for (const char* arrow : {"1 -> before_4", "1 -> before_5", "4 -> before_6", "5 -> before_6", "6 -> before_7", "4 -> before_7",
                            "5 -> before_7", "1 -> before_7"}) {
    EXPECT_THAT(picture, HasSubstr(std::string("before_") + arrow + ";"));
  }
}

TEST(Graphviz, DrawsTheLastArrowsIntoABoxThatReadsManyValues) {
  std::string statements = kConv;
  std::string values = "y";
  for (int i = 0; i < 9; ++i) {
    statements += "z" + std::to_string(i) + " = torch.tanh(y)\n";
    values += ", z" + std::to_string(i);
  }
  const std::string picture = picture_of(conv_and_norm().forward(statements + "return torch.cat([" + values + "], 1)"));
  EXPECT_THAT(picture, HasSubstr("cat\\nof 10 values"));
  EXPECT_THAT(picture, HasSubstr("before_10 -> before_11;"));
  EXPECT_THAT(picture, HasSubstr("before_5 -> before_11;"));
  EXPECT_THAT(picture, Not(HasSubstr("before_4 -> before_11;")));
}

}  // namespace
}  // namespace bnfold::test
