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
    model.layer("conv1", {4, 2, 3, 3}, 4)
        .layer("conv2", {4, 3, 3, 3}, 4)
        .layer("conv5", {4, 5, 3, 3}, 4)
        .layer("linear", {4, 5})
        .norm("norm", 5);
    return model.forward(fmt::format("y = {}\n{}", batch_norm("norm", "x"), statements));
  }

  // y is conv5 of x; the norm reads `part` of it, and `other` is added to what is made of its output
  static Model behind(const std::string& part, int64_t channels, const std::string& other = "x.sum()",
                      const std::string& end = "") {
    return piece("part = " + part, "part", channels, other, end);
  }

  // likewise, behind `statements`
  static Model piece(const std::string& statements, const std::string& part, int64_t channels, const std::string& other,
                     const std::string& end = "") {
    Model model;
    model.layer("conv5", {5, 5, 3, 3}, 5).norm("norm", channels);
    return model.forward(
        fmt::format("y = {}\n{}\nreturn {}{}, {}", conv("conv5", "x"), statements, batch_norm("norm", part), end, other));
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
  expect_stopped(before("l = torch.chunk(y, 2, 1)\nreturn " + conv("conv2", "l[0]") + ", torch.cat(l, 1)").module, {x}, "norm",
                 "forward", Reason::value_in_container, "taken apart");
}

TEST_F(SliceRule, CutsTheAffineWithNarrowAndSelect) {
  EXPECT_EQ(folded(before("return " + conv("conv2", "y.narrow(1, 1, 3)")), x), 1);
  EXPECT_EQ(folded(before("return " + conv("conv5", "y.narrow(2, x.size(0), 3)")), x), 1);
  EXPECT_EQ(folded(before("return torch.linear(y.select(-1, 2).permute([0, 2, 1]), self.linear.weight)"), x), 1);
}

TEST_F(SliceRule, DeclinesANarrowFromAComputedChannelOn) {
  expect_stopped(before("return " + conv("conv2", "y.narrow(1, x.size(0), 3)")).module, {x}, "norm", "forward",
                 Reason::operand_not_constant, "cut");
}

TEST_F(SliceRule, GivesThePartsThatAreTakenByTheirPlace) {
  EXPECT_EQ(folded(before("l = torch.chunk(y, 2, 1)\nreturn " + conv("conv2", "l[0]") + " + " + conv("conv1", "l[-1]")), x), 1);
}

TEST_F(SliceRule, DeclinesAPlaceThatIsComputed) {
  expect_stopped(before("l = torch.chunk(y, 5, 1)\nreturn " + conv("conv1", "torch.cat([l[x.size(0)], l[0]], 1)")).module, {x},
                 "norm", "forward", Reason::operand_not_constant, "cut");
}

TEST_F(SliceRule, GoesBackBehindACutAlongOtherDimensions) {
  for (const char* part : {"y[:, :, :-2]", "y.narrow(-1, x.size(0), 2)", "y[1:, :, 2:, 1:-1]", "y[..., 2:]"}) {
    expect_folded(behind(part, 5).module, {x}, "norm", "conv5");
  }
}

TEST_F(SliceRule, DeclinesToGoBackBehindEverySecondRow) {
  expect_kept(behind("y[:, :, ::2]", 5).module, {x}, "norm", Reason::memory_order_unknown, "skips rows");
}

TEST_F(SliceRule, GoesBackBehindASelectedFrame) {
  for (const char* part : {"y.select(2, 0)", "y[:, :, :, -1]", "y.select(-1, x.size(0))"}) {
    expect_folded(behind(part, 5).module, {x}, "norm", "conv5");
  }
}

TEST_F(SliceRule, DeclinesToGoBackWhereAnotherReaderTakesTheSameChannels) {
  expect_kept(behind("y[:, :, :-2]", 5, "y[:, :, -2:].sum()").module, {x}, "norm", Reason::value_has_other_readers,
              "aten::slice");
}

TEST_F(SliceRule, DeclinesACutAlongAComputedDimension) {
  expect_kept(behind("y.narrow(x.size(0), 0, 2)", 5).module, {x}, "norm", Reason::operand_not_constant, "cut", with_rank(4));
}

TEST_F(SliceRule, GoesBackToSomeOfTheChannels) {
  for (const char* part : {"y[:, :3]", "y[:, -4:-1]", "y.narrow(1, 2, 3)"}) {
    expect_folded(behind(part, 3).module, {x}, "norm", "conv5");
  }
}

TEST_F(SliceRule, LeavesTheOtherChannelsAsTheyAre) {
  for (const char* other : {"y[:, 3:].tanh().sum()", "y.select(1, 4).exp().sum()", "y[:, 3:, 1:].sum() + y[:, -1].sum()"}) {
    expect_folded(behind("y[:, :3]", 3, other).module, {x}, "norm", "conv5");
  }
}

TEST_F(SliceRule, DeclinesWhereAnotherReaderTakesSomeOfItsChannels) {
  for (const char* other : {"y[:, 2:].tanh().sum()", "y.tanh().sum()", "y[:, ::4].sum()"}) {
    expect_kept(behind("y[:, :3]", 3, other).module, {x}, "norm", Reason::value_has_other_readers);
  }
}

TEST_F(SliceRule, DeclinesEverySecondChannelBackward) {
  expect_kept(behind("y[:, ::2]", 3).module, {x}, "norm", Reason::operand_not_constant, "cut");
}

TEST_F(SliceRule, DeclinesSomeOfAnUnknownNumberOfChannels) {
  Model model;
  model.layer("conv", {5, 5, 3, 3}, 5).norm("norm", 3);
  model.forward(fmt::format("y = torch.cat([{}, x.flip([1])[:, :, 1:-1, 1:-1]], 1)[:, :3]\nreturn {}", conv("conv", "x"),
                            batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::sizes_unknown, "number of channels");
}

TEST_F(SliceRule, GoesBackBehindAPiece) {
  for (const char* pieces : {"a, b = torch.chunk(y, 2, 1)", "a, b = torch.split(y, 3, 1)", "a, b = torch.split(y, [3, 2], -3)",
                             "l = y.chunk(2, 1)\na = l[0]\nb = l[-1]", "a, b = torch.split_with_sizes(y, [3, 2], 1)"}) {
    expect_folded(piece(pieces, "a", 3, "b.tanh().sum()").module, {x}, "norm", "conv5");
    expect_folded(piece(pieces, "b", 2, "a.tanh().sum()").module, {x}, "norm", "conv5");
  }
}

TEST_F(SliceRule, DeclinesAPieceThatIsTakenTwice) {
  expect_kept(piece("l = y.chunk(2, 1)", "l[0]", 3, "l[-2].sum()").module, {x}, "norm", Reason::value_has_other_readers,
              "another part");
}

TEST_F(SliceRule, DeclinesAPieceOfOtherDimensionsBesideAnother) {
  expect_folded(piece("a, b = torch.chunk(y, 2, 2)", "a", 5, "x.sum()").module, {x}, "norm", "conv5");
  expect_kept(piece("a, b = torch.chunk(y, 2, 2)", "a", 5, "b.sum()").module, {x}, "norm", Reason::value_has_other_readers,
              "another part");
}

TEST_F(SliceRule, DeclinesPiecesOfAComputedLength) {
  expect_kept(piece("a, b = torch.split(y, x.size(0) + 1, 1)", "a", 3, "b.sum()").module, {x}, "norm", Reason::sizes_unknown,
              "number of channels");
}

TEST_F(SliceRule, DeclinesAPieceOfAListThatIsKept) {
  expect_kept(piece("l = y.chunk(2, 1)", "l[0]", 3, "torch.cat(l, 1).sum()").module, {x}, "norm", Reason::value_in_container,
              "taken apart");
}

TEST_F(SliceRule, DeclinesAPieceOfAListThatIsBuiltElsewhere) {
  expect_kept(piece("l = [y, y]", "l[x.size(0)- 1]", 5, "y.sum()").module, {x}, "norm", Reason::value_in_container, "elsewhere");
}

// What stands in the place of the norm is a part of memory, and view takes none.
TEST_F(SliceRule, MakesACopyWhereTheOrderInMemoryIsSeen) {
  for (const at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    for (const char* seen : {".view([-1])", ".permute([0, 2, 3, 1]).view([-1])"}) {
      const bool in_order = (format == at::MemoryFormat::Contiguous) == (std::string(seen) == ".view([-1])");
      if (!in_order) continue;
      const Model model = behind("y[:, :, :, 1:]", 5, "x.sum()", seen);
      const FoldResult result = expect_folded(model.module, {x.contiguous(format)}, "norm", "conv5");
      EXPECT_EQ(count_nodes(result.module, "aten::clone"), 1);
    }
  }
}

// Of a row of channels_last memory batch_norm makes what lies in order.
TEST_F(SliceRule, MakesAContiguousCopyOfASelectedRow) {
  for (const at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const Model model = behind("y.select(3, 0)", 5, "x.sum()", ".view([-1])");
    expect_folded(model.module, {x.contiguous(format)}, "norm", "conv5");
  }
}

TEST_F(SliceRule, MakesNoCopyWhereTheReadersMakeNewMemory) {
  const FoldResult result = expect_folded(behind("y[:, :, :, 1:]", 5, "x.sum()", ".relu()").module, {x}, "norm", "conv5");
  EXPECT_EQ(count_nodes(result.module, "aten::clone"), 0);
}

TEST_F(SliceRule, OverwritesNoPartThatWouldBeViewed) {
  const FoldResult result =
      expect_folded(behind("y[:, :, :, 1:]", 5, "x.sum()", ".relu_().view([-1])").module, {x}, "norm", "conv5");
  EXPECT_EQ(count_nodes(result.module, "aten::relu_"), 0);
}

// The parts of a linear layer's output along the batch, as a ghost batch norm has them.
class SameNormOfParts : public SliceRule {
 protected:
  static Model parts(const std::string& statements) {
    Model model;
    model.layer("linear", {5, 4}, 5).norm("norm", 5).norm("other", 5);
    return model.forward("y = torch.linear(x, self.linear.weight, self.linear.bias)\n" + statements);
  }

  static std::string joined(const std::string& a, const std::string& b) {
    return fmt::format("return torch.cat([{}, {}], 0)", a, b);
  }

  const at::Tensor rows = at::randn({6, 4}, at::kDouble);
  const std::string n_a = batch_norm("norm", "a");
  const std::string n_b = batch_norm("norm", "b");
};

TEST_F(SameNormOfParts, GoesIntoTheWhole) {
  for (const char* cut : {"a, b = torch.chunk(y, 2, 0)", "a, b = torch.split(y, 3, 0)", "l = y.chunk(2, 0)\na = l[0]\nb = l[-1]",
                          "a, b = torch.split(y, [2, 4], 0)"}) {
    const FoldResult result = expect_folded(parts(cut + ("\n" + joined(n_a, n_b))).module, {rows}, "norm", "linear");
    EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
  }
}

TEST_F(SameNormOfParts, GoesIntoTheWholeBehindALoopOverTheParts) {
  const std::string loop = "l : List[Tensor] = []\nfor a in y.chunk(3, 0):\n  l.append(" + n_a + ")\n";
  for (const int64_t batch : {1, 6, 7}) {
    expect_folded(parts(loop + "return torch.cat(l, 0)").module, {at::randn({batch, 4}, at::kDouble)}, "norm", "linear");
  }
}

TEST_F(SameNormOfParts, DeclinesALoopThatTakesOnePartAgainAndAgain) {
  const std::string loop = "l : List[Tensor] = []\np = y.chunk(3, 0)\nfor a in p:\n  l.append({})\n";
  const std::string same = fmt::format(fmt::runtime(loop), batch_norm("norm", "p[0]"));
  expect_kept(parts(same + "return torch.cat(l, 0)").module, {rows}, "norm", Reason::value_from_other_block, "again and again");
}

TEST_F(SameNormOfParts, GoesIntoTheWholeOfFrames) {
  const at::Tensor frames = at::randn({2, 3, 4}, at::kDouble);
  expect_folded(parts("a, b = y.unbind(0)\n" + joined(n_a, n_b)).module, {frames}, "norm", "linear", with_rank(3));
}

TEST_F(SameNormOfParts, DeclinesFramesWhoseOrderInMemoryIsSeen) {
  const Model model = parts("a, b = y.unbind(0)\nreturn " + n_a + ", " + n_b);
  expect_kept(model.module, {at::randn({2, 3, 4}, at::kDouble)}, "norm", Reason::value_has_other_readers, "another part",
              with_rank(3));
}

TEST_F(SameNormOfParts, DeclinesAnotherNormOfAPart) {
  const Model model = parts("a, b = torch.chunk(y, 2, 0)\n" + joined(n_a, batch_norm("other", "b")));
  expect_kept(model.module, {rows}, "norm", Reason::value_has_other_readers, "another part");
}

TEST_F(SameNormOfParts, DeclinesAPartThatSomethingElseReads) {
  const Model model = parts("a, b = torch.chunk(y, 2, 0)\n" + joined(n_a, n_b + " + b"));
  expect_kept(model.module, {rows}, "norm", Reason::value_has_other_readers, "another part");
}

// The norm of the second part is in the way of the affine that is wanted of the first.
TEST_F(SameNormOfParts, DeclinesWhereTheOneReadsTheOther) {
  const Model model = parts("a, b = torch.chunk(y, 2, 0)\nz = a + " + n_b + "\nreturn " + batch_norm("norm", "z"));
  expect_kept(model.module, {rows}, "norm", Reason::value_has_other_readers);
}

TEST_F(SliceRule, DeclinesALengthThatIsComputed) {
  expect_stopped(
      before("a, b = torch.split(y, x.size(0) + 1, 1)\nreturn " + conv("conv2", "a") + " + " + conv("conv1", "b")).module, {x},
      "norm", "forward", Reason::sizes_unknown, "number of channels");
}

}  // namespace
}  // namespace bnfold::test
