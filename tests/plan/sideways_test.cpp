// A norm beside a convolution, and their sum.
#include "plan/sideways.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class Sideways : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // b is the norm of x, c the convolution of x
  static Model beside(const std::string& sum, const std::string& call = conv("conv", "x", 1),
                      at::IntArrayRef weight = {4, 4, 3, 3}) {
    Model model;
    model.layer("conv", weight, 4).norm("norm", 4).parameter("plane", at::randn({4, 6, 6}, at::kDouble));
    return model.forward(fmt::format("b = {}\nc = {}\n{}", batch_norm("norm", "x"), call, sum));
  }

  static std::string call(const std::string& arguments) {
    return fmt::format("torch.conv2d(x, self.conv.weight, self.conv.bias, {})", arguments);
  }

  void expect_sideways(const Model& model) const {
    const FoldResult result = expect_folded(model.module, {x}, "norm", "conv");
    ASSERT_EQ(result.report.folded.size(), 1U);
    EXPECT_EQ(result.report.folded[0].direction, Direction::sideways);
  }

  void expect_left(const Model& model) const { expect_kept(model.module, {x}, "norm", Reason::value_from_graph_input); }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

TEST_F(Sideways, GoesIntoTheConvolutionItIsAddedTo) {
  for (const char* sum : {"b + c", "c + b", "torch.add(c, b, alpha=3)", "c - b", "torch.sub(c, b, alpha=-2)"}) {
    expect_sideways(beside(std::string("return ") + sum));
  }
}

TEST_F(Sideways, PassesNumbersInTheSum) {
  for (const char* sum : {"c + 0 + b", "0.5 + c + b", "b + (c - 2) * 1"}) expect_sideways(beside(std::string("return ") + sum));
}

TEST_F(Sideways, TakesSumsInPlace) {
  expect_sideways(beside("return b.add_(c)"));
  expect_sideways(beside("c += b\nreturn c"));
  expect_sideways(beside("return c.sub_(b)"));
}

TEST_F(Sideways, LeavesNoSum) {
  EXPECT_EQ(count_nodes(fold(beside("return b + c").module).module, "aten::add"), 0);
}

TEST_F(Sideways, DeclinesAConvolutionThatCountsSeveralTimes) {
  expect_left(beside("return torch.add(b, c, alpha=2)"));
  expect_left(beside("return b - c"));
}

TEST_F(Sideways, DeclinesAConvolutionWhoseWeightOrGroupsAreComputed) {
  expect_left(beside("return b + c", "torch.conv2d(x, self.conv.weight * x.mean(), self.conv.bias, [1, 1], [1, 1])"));
  expect_left(beside("return b + c", call("[1, 1], [1, 1], [1, 1], x.dim() - 3")));
}

TEST_F(Sideways, TakesAConvolutionBesideWhichItCountsSeveralTimes) {
  expect_sideways(beside("return torch.sub(c, b, alpha=3)"));
  expect_sideways(beside("return torch.sub(torch.sub(c, b, alpha=3), torch.sigmoid(x), alpha=0.5)"));
  expect_sideways(beside("return torch.sigmoid(x) - (c - b)"));
}

TEST_F(Sideways, DeclinesAConvolutionFurtherUpWhoseRestHasUnknownSizes) {
  expect_left(beside("return torch.sub(b + torch.sigmoid(x), c, alpha=2)"));
  expect_left(beside("return torch.sub(torch.sub(torch.sigmoid(x), b, alpha=3), c, alpha=0.5)"));
}

TEST_F(Sideways, TakesAConvolutionThatCountsSeveralTimesBesideAnother) {
  const std::string other = "d = " + conv("conv", "torch.tanh(x)", 1) + "\n";
  expect_sideways(beside(other + "return b + torch.sub(d, c, alpha=2)"));
  expect_sideways(beside(other + "return torch.sub(torch.add(d, c, alpha=3), b, alpha=0.5)"));
}

TEST_F(Sideways, DeclinesAGateInThePlaceOfTheSum) {
  const std::string gate = "b = b + torch.sigmoid(x.mean([2, 3], True))\n";
  expect_left(beside(gate + "return b + c"));
  expect_left(beside(gate + "b += c\nreturn b"));
}

TEST_F(Sideways, DeclinesAnAddendOfAnotherDtypeInThePlaceOfTheSum) {
  expect_left(beside("b = b + torch.sigmoid(x).half()\nb += c\nreturn b"));
}

TEST_F(Sideways, DeclinesAPermutedAddendInThePlaceOfTheSum) {
  expect_left(beside("b = b + torch.sigmoid(x.transpose(2, 3))\nb = b + c\nreturn b.view([2, -1])"));
}

TEST_F(Sideways, TakesTheNumberThatASumStartedWith) {
  expect_sideways(beside("return (0 + b) + c"));
  expect_sideways(beside("return (b + 1.5).sub_(2) + c"));
}

TEST_F(Sideways, DeclinesACountOfZero) {
  expect_left(beside("return torch.add(c, b, alpha=0)"));
}

TEST_F(Sideways, DeclinesAlphasThatAreComputed) {
  expect_left(beside("return torch.add(c, b, alpha=x.size(0))"));
}

TEST_F(Sideways, TakesEveryConvolutionThatKeepsTheSize) {
  expect_sideways(beside("return b + c", call("[1, 1], [0, 0], [1, 1], 1"), {4, 4, 1, 1}));
  expect_sideways(beside("return b + c", call("[1, 1], [2, 2], [2, 2], 1")));
  expect_sideways(beside("return b + c", call("[1, 1], [2, 0], [1, 1], 1"), {4, 4, 5, 1}));
  expect_sideways(beside("return b + c", call("[1, 1], [1, 1], [1, 1], 2"), {4, 2, 3, 3}));
  expect_sideways(beside("return b + c", call("[1, 1], [1, 1], [1, 1], 4"), {4, 1, 3, 3}));
  expect_sideways(beside("return b + c", call("[1, 1], 'same', [1, 1], 1")));
}

TEST_F(Sideways, TakesAConvolutionWithoutABias) {
  const Model model = beside("return b + c", "torch.conv2d(x, self.conv.weight, None, [1, 1], [1, 1], [1, 1], 1)");
  expect_sideways(model);
}

TEST_F(Sideways, TakesAConvolutionAsTracingSpellsIt) {
  const std::string end = ", [0, 0], 1, False, False, True, True)";
  const std::string begin = "torch._convolution(x, self.conv.weight, self.conv.bias, [1, 1], [1, 1], [1, 1], ";
  expect_sideways(beside("return b + c", begin + "False" + end));
  expect_left(beside("return b + c", begin + "True" + end));
}

TEST_F(Sideways, DeclinesAConvolutionOfAnotherSize) {
  Model model = beside("return b + c.mean([2, 3], True)", call("[1, 1], [0, 0], [1, 1], 1"));
  expect_left(model);
  expect_left(beside("return b[:, :, :4, :4] + c", call("[1, 1], [0, 0], [1, 1], 1")));
  expect_left(beside("return b + c", call("[2, 2], [1, 1], [1, 1], 1"), {4, 4, 8, 8}));
  expect_kept(beside("return b + c", call("[2, 2], [1, 1], [1, 1], 1")).module, {}, "norm", Reason::value_from_graph_input);
  expect_kept(beside("return b + c", call("[1, 1], [0, 0], [1, 1], 1")).module, {}, "norm", Reason::value_from_graph_input);
}

TEST_F(Sideways, DeclinesEvenKernels) {
  expect_left(beside("return b + c", call("[1, 1], 'same', [1, 1], 1"), {4, 4, 2, 2}));
}

TEST_F(Sideways, DeclinesOneOutputForAllChannels) {
  Model model;
  model.layer("conv", {1, 4, 3, 3}, 1).norm("norm", 4);
  model.forward(fmt::format("return {} + {}", batch_norm("norm", "x"), conv("conv", "x", 1)));
  expect_left(model);
}

TEST_F(Sideways, DeclinesAConvolutionOfAnotherInput) {
  expect_left(beside("return b + c", conv("conv", "x * 2", 1)));
}

TEST_F(Sideways, DeclinesAnotherReaderOfEither) {
  expect_left(beside("return b + c, b"));
  expect_left(beside("return b + c, c"));
  expect_left(beside("d = c + x\nreturn b + d, d"));
}

// Each round of a loop writes into the sum of the norm of x and y.
Model sum_in_a_loop(const std::string& before, const std::string& in_loop) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  return model.forward(
      fmt::format("y = {}\nout = x * 0\nfor i in range(x.size(0)):\n  {}\n  z = {} + y\n  z.mul_(2.0)\n"
                  "  out = out + z\nreturn out",
                  before, in_loop, batch_norm("norm", "x")));
}

TEST_F(Sideways, GoesIntoAConvolutionInTheSameLoop) {
  expect_sideways(sum_in_a_loop("x", "y = " + conv("conv", "x", 1)));
}

TEST_F(Sideways, DeclinesAConvolutionBeforeTheLoop) {
  expect_left(sum_in_a_loop(conv("conv", "x", 1), "out = out * 2"));
}

TEST_F(Sideways, DeclinesWhereTheInputIsWrittenBetween) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  model.forward(
      fmt::format("u = torch.tanh(x)\nb = {}\nu.add_(1.0)\nreturn b + {}", batch_norm("norm", "u"), conv("conv", "u", 1)));
  EXPECT_EQ(expect_unharmed(model.module, {x}).report.folded.size(), 0U);
}

TEST_F(Sideways, FoldsWhereTheInputIsWrittenBehindBoth) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  model.forward(fmt::format("u = torch.tanh(x)\nb = {}\nc = {}\nu.add_(1.0)\nreturn (b + c) * u", batch_norm("norm", "u"),
                            conv("conv", "u", 1)));
  expect_sideways(model);
}

TEST_F(Sideways, DoesNoHarmWhereABranchReturnedTheInput) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  model.forward(
      fmt::format("u = torch.tanh(x)\nif bool(x.sum() > -1000):\n  a = u\nelse:\n  a = u * 2\nb = {}\nu.add_(1.0)\n"
                  "return (b + {}) * u",
                  batch_norm("norm", "a"), conv("conv", "a", 1)));
  expect_unharmed(model.module, {x});
}

TEST_F(Sideways, DoesNoHarmToWhatTheRestOfTheSumIsAddedTo) {
  expect_unharmed(beside("z = torch.sigmoid(x)\nb += z\nb += c\nreturn b * z").module, {x});
}

TEST_F(Sideways, LeavesTheInputAlone) {
  FoldResult result = fold(beside("b += x\nb += c\nreturn b").module);
  const at::Tensor input = x.clone();
  result.module.forward({input});
  EXPECT_TRUE(at::equal(input, x));
}

TEST_F(Sideways, LeavesAParameterAlone) {
  expect_unharmed(beside("b += self.plane\nb += c\nreturn b").module, {x.narrow(0, 0, 1)});
}

TEST_F(Sideways, DoesNoHarmToTheSizesOfASum) {
  expect_unharmed(beside("y = b + torch.sigmoid(x).mean([2, 3], True)\nreturn (y + c) * y.size(2)").module, {x});
}

TEST_F(Sideways, GoesIntoTheConvolutionThatTookItsOwnNorm) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).layer("point", {4, 4, 1, 1}, 4).norm("norm1", 4).norm("norm2", 4).norm("norm", 4);
  model.forward(fmt::format("p = {}\nc = {}\nb = {}\nc = {}\np = {}\nreturn torch.relu((b + c) + p)", conv("point", "x"),
                            conv("conv", "x", 1), batch_norm("norm", "x"), batch_norm("norm1", "c"), batch_norm("norm2", "p")));
  const FoldResult result = expect_unharmed(model.module, {x});
  EXPECT_EQ(result.report.folded.size(), 3U);
  EXPECT_EQ(result.report.merged.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::add"), 0);
}

}  // namespace
}  // namespace bnfold::test
