#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class ConcatRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // u = conv1(x) of 2 channels, v = conv2(x) of 3, norm of their concatenation
  static Model behind(const std::string& concatenation, int64_t channels = 5, const std::string& behind = "") {
    Model model;
    model.layer("conv1", {2, 3, 1, 1}, 2).layer("conv2", {3, 3, 1, 1}, 3).norm("norm", channels);
    return model.forward(fmt::format("u = {}\nv = {}\ny = {}\nreturn {}{}", conv("conv1", "x"), conv("conv2", "x"), concatenation,
                                     batch_norm("norm", "y"), behind));
  }

  // y is the norm of x; conv with `channels` inputs behind the concatenation
  static Model before(const std::string& concatenation, int64_t channels) {
    Model model;
    model.layer("conv1", {2, 3, 1, 1}, 2).layer("conv", {4, channels, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = {}\nu = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), conv("conv1", "x"),
                                     concatenation, conv("conv", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(ConcatRule, GivesEachPartASliceOfTheAffine) {
  expect_folded(behind("torch.cat([u, v], 1)").module, {x}, "norm", "conv2, conv1");
  expect_folded(behind("torch.concat([v, u], -3)").module, {x}, "norm", "conv2, conv1");
}

TEST_F(ConcatRule, PassesNestedConcatenations) {
  const Model model = behind("torch.cat([torch.cat([u, v], 1), torch.conv2d(x, self.conv1.weight)], 1)", 7);
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 1U);
}

TEST_F(ConcatRule, GivesEachPartTheAffineAlongAnotherDimension) {
  expect_folded(behind("torch.cat([v, torch.conv2d(x, self.conv2.weight)], 2)", 3).module, {x}, "norm", "conv2");
}

TEST_F(ConcatRule, InfersTheOneSizeThatIsNotKnown) {
  const Model model = behind("torch.cat([torch.dropout(u, 0.1, False).view(u.size(0), 2, 6, 6), v], 1)");
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 1U);
}

TEST_F(ConcatRule, DeclinesWhereOnePartTakesNoAffine) {
  expect_kept(behind("torch.cat([u, torch.sigmoid(v)], 1)").module, {x}, "norm", Reason::operator_not_affine, "sigmoid");
}

TEST_F(ConcatRule, GivesTheScaleToTwoPartsOfOneDtype) {
  expect_folded(two_dtypes(at::kFloat, at::kFloat, "torch.cat([u, v], 1)", 8).module, {x * 20, x * 20}, "norm", "conv2, conv1");
}

TEST_F(ConcatRule, DeclinesANarrowPartWhoseScaledValuesWouldLeaveItsRange) {
  const Model model = two_dtypes(at::kHalf, at::kFloat, "torch.cat([u, v], 1)", 8);
  const at::Tensor large = x * 20;
  const FoldResult result = expect_kept(model.module, {large, large}, "norm", Reason::dtypes_differ);
  expect_same_output_in_own_dtype(model.module, result.module, {large.to(at::kHalf), large.to(at::kFloat)}, 5e-3);
}

TEST_F(ConcatRule, DeclinesWhereTheInputIsAPart) {
  expect_kept(behind("torch.cat([u, x], 1)").module, {x}, "norm", Reason::value_from_graph_input);
}

TEST_F(ConcatRule, DeclinesWhereAPartHasAnotherReader) {
  expect_kept(behind("torch.cat([u, v], 1)", 5, " + u.sum()").module, {x}, "norm", Reason::value_has_other_readers, "aten::sum");
}

TEST_F(ConcatRule, DeclinesAValueThatIsTwoParts) {
  expect_kept(behind("torch.cat([u, u], 1)", 4).module, {x}, "norm", Reason::value_has_other_readers, "twice");
}

TEST_F(ConcatRule, DeclinesAListThatIsBuiltElsewhere) {
  expect_kept(behind("[u]\nif bool(x.sum() > -1000):\n  y.append(v)\ny = torch.cat(y, 1)").module, {x}, "norm",
              Reason::list_not_visible, "elsewhere");
}

TEST_F(ConcatRule, SeesWhatIsAddedToAListAtOnce) {
  for (const char* statements : {"y += [v]", "y.extend([v])"}) {
    expect_folded(behind(fmt::format("[u]\n{}\ny = torch.cat(y, 1)", statements)).module, {x}, "norm", "conv2, conv1");
  }
}

TEST_F(ConcatRule, DeclinesWhatIsAddedOfAListThatOthersRead) {
  expect_kept(behind("[u]\nl = [v]\nif bool(x.sum() > -1000):\n  l[0] = v * 2\ny += l\ny = torch.cat(y, 1)").module, {x}, "norm",
              Reason::list_not_visible, "elsewhere");
}

TEST_F(ConcatRule, DeclinesADimensionThatIsComputed) {
  expect_kept(behind("torch.cat([u, v], x.dim() - 3)").module, {x}, "norm", Reason::operand_not_constant, "dimension");
}

TEST_F(ConcatRule, DeclinesPartsOfUnknownSizes) {
  const std::string half = "x.repeat([1, 1, 1, 1])[:, :x.size(1) // 2]";
  expect_kept(behind(fmt::format("torch.cat([torch.sigmoid(x * {0}), {0}, u, {0}, {0}], 1)", half), 8).module, {x}, "norm",
              Reason::sizes_unknown, "channels of its parts");
}

TEST_F(ConcatRule, JoinsTheAffineOfAPartWithNothingForTheOthers) {
  expect_folded(before("torch.cat([y, u], 1)", 5).module, {x}, "norm", "conv");
  expect_folded(before("torch.cat([u, torch.sigmoid(u), y], 1)", 7).module, {x}, "norm", "conv");
}

TEST_F(ConcatRule, KnowsWhereThePartBeginsByTheLayerBehind) {
  const std::string part = "x.repeat([1, 2, 1, 1])[:, x.size(1) - 1:]";  // 4 channels, which nothing tells
  for (const char* parts : {"[y, {0}]", "[{0}, y]", "[u, y, {0}]", "[{0}, y, u]"}) {
    const bool has_u = std::string(parts).find('u') != std::string::npos;
    const std::string list = fmt::format(fmt::runtime(parts), part);
    expect_folded(before("torch.cat(" + list + ", 1)", has_u ? 9 : 7).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(ConcatRule, DeclinesUnknownPartsOnBothSides) {
  const std::string part = "x.repeat([1, 2, 1, 1])[:, x.size(1) - 1:]";
  expect_stopped(before(fmt::format("torch.cat([{0}, y, {0}], 1)", part), 11).module, {x}, "norm", "forward",
                 Reason::sizes_unknown, "channels of its parts", with_rank(4));
}

TEST_F(ConcatRule, JoinsAnEmbeddingWithNothing) {
  Model model;
  model.parameter("table", at::randn({9, 3}, at::kDouble)).layer("linear", {5, 7}, 5).norm("norm", 4);
  model.define(
      fmt::format("def forward(self, x, i):\n  e = torch.embedding(self.table, i)\n  y = torch.cat([e, {}], 1)\n"
                  "  return torch.linear(y, self.linear.weight, self.linear.bias)\n",
                  batch_norm("norm", "x")));
  Options options;
  options.input_ranks = {2, 1};
  expect_folded(model.module, {at::randn({6, 4}, at::kDouble), at::arange(6)}, "norm", "linear", options);
}

TEST_F(ConcatRule, JoinsTheAffineOfEveryPart) {
  expect_folded(before("torch.cat([y, u, y], 1)", 8).module, {x}, "norm", "conv");
  expect_folded(before("torch.cat([torch.cat([u, y], 1), y], 1)", 8).module, {x}, "norm", "conv");
}

TEST_F(ConcatRule, DeclinesToJoinAlongTheWidth) {
  expect_stopped(before("torch.cat([y, x], 3)", 3).module, {x}, "norm", "forward", Reason::sizes_unknown);
}

TEST_F(ConcatRule, DeclinesAListWithAnotherReader) {
  expect_stopped(before("y\nl = [y, u]\nif bool(x.sum() > -1000):\n  l.append(u)\ny = torch.cat(l, 1)", 7).module, {x}, "norm",
                 "forward", Reason::value_in_container);
}

TEST_F(ConcatRule, GivesEachPartOfAStackTheAffine) {
  for (const char* stacked : {"torch.stack([v, torch.conv2d(x, self.conv2.weight)]).mean(0)",
                              "torch.stack([v, torch.conv2d(x, self.conv2.weight)], -1).sum(-1)"}) {
    expect_folded(behind(stacked, 3).module, {x}, "norm", "conv2");
  }
}

TEST_F(ConcatRule, DeclinesAStackAlongTheChannels) {
  expect_kept(behind("torch.stack([v.mean([1]), u.mean([1])], 1)", 2).module, {x}, "norm", Reason::affine_varies_elsewhere,
              "adds");
}

}  // namespace
}  // namespace bnfold::test
