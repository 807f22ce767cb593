#include "knowledge/ranks.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <memory>
#include <unordered_map>

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

class RanksOf : public ::testing::Test {
 protected:
  void read(const std::string& nodes, const std::vector<std::optional<int64_t>>& hints = {}) {
    graph = std::make_shared<jit::Graph>();
    values.clear();
    jit::parseIR("graph(%self : Tensor, %x : Tensor, %w : Tensor):\n" + nodes + "  return (%y)\n", graph.get(), values);
    ranks = std::make_unique<Ranks>(*graph, hints, [](const jit::Value*) { return std::nullopt; });
  }

  std::optional<int64_t> rank(const std::string& name) const { return ranks->of(values.at(name)); }
  bool certain(const std::string& name) const { return ranks->is_certain(values.at(name)); }

  std::shared_ptr<jit::Graph> graph;
  std::unordered_map<std::string, jit::Value*> values;
  std::unique_ptr<Ranks> ranks;
};

TEST_F(RanksOf, UnknownWithoutAnyFact) {
  read("  %y : Tensor = aten::relu(%x)\n");
  EXPECT_EQ(rank("y"), std::nullopt);
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, HintsReachWhatKeepsTheRankButAreNotCertain) {
  read("  %y : Tensor = aten::relu(%x)\n", {3});
  EXPECT_EQ(rank("y"), 3);
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, ConvolutionsAreBatched) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %c : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n  %y : Tensor = aten::relu(%c)\n");
  EXPECT_EQ(rank("y"), 4);
  EXPECT_EQ(rank("x"), 4);
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, AHintThatConfirmsAConvolutionIsCertain) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n",
      {4});
  EXPECT_TRUE(certain("y"));
}

TEST_F(RanksOf, AnEmbeddingHasOneDimensionMore) {
  read(
      "  %m : int = prim::Constant[value=-1]()\n  %f : bool = prim::Constant[value=0]()\n"
      "  %y : Tensor = aten::embedding(%w, %x, %m, %f, %f)\n",
      {2});
  EXPECT_EQ(rank("y"), 3);
}

TEST_F(RanksOf, AMeanHasFewerDimensionsUnlessItKeepsThem) {
  const std::string mean =
      "  %d : int[] = prim::Constant[value=[2, 3]]()\n  %n : NoneType = prim::Constant()\n"
      "  %y : Tensor = aten::mean(%x, %d, %k, %n)\n";
  read("  %k : bool = prim::Constant[value=0]()\n" + mean, {4});
  EXPECT_EQ(rank("y"), 2);
  read("  %k : bool = prim::Constant[value=1]()\n" + mean, {4});
  EXPECT_EQ(rank("y"), 4);
}

TEST_F(RanksOf, AHintThatContradictsAConvolutionWins) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n",
      {3});
  EXPECT_EQ(rank("y"), 3);
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, FlattenFromDimensionOneGivesAMatrix) {
  read(
      "  %a : int = prim::Constant[value=1]()\n  %b : int = prim::Constant[value=-1]()\n"
      "  %y : Tensor = aten::flatten(%x, %a, %b)\n");
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(certain("y"));
}

TEST_F(RanksOf, FlattenOfLeadingDimensionsTakesSomeAway) {
  read(
      "  %a : int = prim::Constant[value=0]()\n  %b : int = prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::flatten(%x, %a, %b)\n",
      {3});
  EXPECT_EQ(rank("y"), 2);
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, ViewHasTheLengthOfItsSizes) {
  read(
      "  %a : int = prim::Constant[value=0]()\n  %n : int = aten::size(%x, %a)\n  %m : int = prim::Constant[value=-1]()\n"
      "  %l : int[] = prim::ListConstruct(%n, %m)\n  %y : Tensor = aten::view(%x, %l)\n");
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(certain("y"));
}

TEST_F(RanksOf, AProductWithASumOfEverythingKeepsTheRank) {
  read("  %n : NoneType = prim::Constant()\n  %s : Tensor = aten::sum(%w, %n)\n  %y : Tensor = aten::mul(%x, %s)\n", {3});
  EXPECT_EQ(rank("s"), 0);
  EXPECT_EQ(rank("y"), 3);
}

TEST_F(RanksOf, AClampByNumbersKeepsTheRank) {
  read(
      "  %n : NoneType = prim::Constant()\n  %l : float = prim::Constant[value=0.1]()\n  %y : Tensor = aten::clamp(%x, %l, %n)\n",
      {3});
  EXPECT_EQ(rank("y"), 3);
}

TEST_F(RanksOf, AClampByTensorsMayHaveMoreDimensions) {
  for (const char* clamp :
       {"aten::clamp(%x, %w, %n)", "aten::clamp(%x, %n, %w)", "aten::clamp_min(%x, %w)", "aten::clamp_max(%x, %w)"}) {
    read("  %n : NoneType = prim::Constant()\n  %y : Tensor = " + std::string(clamp) + "\n", {3});
    EXPECT_EQ(rank("y"), std::nullopt) << clamp;
  }
}

TEST_F(RanksOf, ReshapeAsHasTheRankOfTheOther) {
  read("  %v : Tensor = aten::reshape_as(%w, %x)\n  %y : Tensor = aten::relu(%v)\n", {3, 2});
  EXPECT_EQ(rank("w"), 2);
  EXPECT_EQ(rank("y"), 3);
}

TEST_F(RanksOf, ANormOfAnySpellingKeepsTheRank) {
  read(
      "  %n : NoneType = prim::Constant()\n  %no : bool = prim::Constant[value=0]()\n  %e : float = prim::Constant[value=0.1]()\n"
      "  %y : Tensor, %a : Tensor, %b : Tensor = aten::native_batch_norm(%x, %n, %n, %n, %n, %no, %e, %e)\n",
      {3});
  EXPECT_EQ(rank("y"), 3);
}

TEST_F(RanksOf, ACheckThatRaisesIsAProof) {
  read(
      "  %d : int = aten::dim(%x)\n  %f : int = prim::Constant[value=4]()\n  %c : bool = aten::ne(%d, %f)\n"
      "  %s : str = prim::Constant[value=\"no\"]()\n  prim::If(%c)\n    block0():\n      prim::RaiseException(%s, %s)\n"
      "      -> ()\n    block1():\n      -> ()\n  %y : Tensor = aten::relu(%x)\n");
  EXPECT_EQ(rank("y"), 4);
  EXPECT_TRUE(certain("y"));
}

TEST_F(RanksOf, ACheckThatDoesNotRaiseIsNone) {
  read(
      "  %d : int = aten::dim(%x)\n  %f : int = prim::Constant[value=4]()\n  %c : bool = aten::ne(%d, %f)\n  prim::If(%c)\n"
      "    block0():\n      %z : Tensor = aten::relu(%x)\n      -> ()\n    block1():\n      -> ()\n  %y : Tensor = "
      "aten::relu(%x)\n");
  EXPECT_EQ(rank("y"), std::nullopt);
}

TEST_F(RanksOf, NothingIsKnownWhereAValueChangesItsRankInPlace) {
  const std::string flatten =
      "  %a : int = prim::Constant[value=1]()\n  %b : int = prim::Constant[value=-1]()\n"
      "  %y : Tensor = aten::flatten(%x, %a, %b)\n";
  read(flatten + "  %z : Tensor = aten::unsqueeze(%y, %a)\n");
  EXPECT_TRUE(certain("y"));
  read(flatten + "  %z : Tensor = aten::unsqueeze_(%y, %a)\n");
  EXPECT_FALSE(certain("y"));
}

TEST_F(RanksOf, WhatTheGraphChecksNowIsCertain) {
  read("  %y : Tensor = aten::relu(%x)\n");
  ranks->prove(values.at("x"), 2);
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(certain("y"));
}

}  // namespace
}  // namespace bnfold::test
