#include "knowledge/ranks.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

class RanksOf : public ::testing::Test {
 protected:
  void read(const std::string& nodes, const std::vector<std::optional<int64_t>>& hints = {}) {
    graph = std::make_shared<jit::Graph>();
    values.clear();
    jit::parseIR("graph(%self : Tensor, %x : Tensor, %w : Tensor):\n" + nodes + "  return (%y)\n", graph.get(), values);
    ranks = std::make_unique<Ranks>(*graph, hints, [this](const jit::Value* value) {
      const auto matrix = values.find("matrix");
      return matrix != values.end() && value == matrix->second ? std::optional<int64_t>(2) : std::nullopt;
    });
  }

  std::optional<Rank> known(const std::string& name) const {
    return ranks->of(values.at(name), values.at(name)->node()->owningBlock());
  }

  std::optional<int64_t> rank(const std::string& name) const {
    const auto rank = known(name);
    return rank ? std::optional<int64_t>(rank->number) : std::nullopt;
  }

  bool is(Strength strength, const std::string& name) const { return known(name) && known(name)->strength == strength; }
  bool proven(const std::string& name) const { return is(Strength::proven, name); }

  // The block of the first If of the graph that runs where its condition is true.
  const jit::Block* branch() const {
    const auto nodes = graph->nodes();
    return std::find_if(nodes.begin(), nodes.end(), [](const jit::Node* node) { return node->kind() == jit::prim::If; })
        ->blocks()
        .at(0);
  }

  std::shared_ptr<jit::Graph> graph;
  std::unordered_map<std::string, jit::Value*> values;
  std::unique_ptr<Ranks> ranks;
};

TEST_F(RanksOf, UnknownWithoutAnyFact) {
  read("  %y : Tensor = aten::relu(%x)\n");
  EXPECT_EQ(rank("y"), std::nullopt);
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, HintsReachWhatKeepsTheRankButAreNotCertain) {
  read("  %y : Tensor = aten::relu(%x)\n", {3});
  EXPECT_EQ(rank("y"), 3);
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, ConvolutionsMayHaveABatch) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %c : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n  %y : Tensor = aten::relu(%c)\n");
  EXPECT_EQ(rank("y"), 4);
  EXPECT_EQ(rank("x"), 4);
  EXPECT_TRUE(is(Strength::assumed, "y"));
}

TEST_F(RanksOf, AHintThatConfirmsAConvolutionIsNoProof) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n",
      {4});
  EXPECT_TRUE(is(Strength::hinted, "y"));
}

// What a trace makes of conv2d raises an error for a value without a batch.
TEST_F(RanksOf, TracedConvolutionsHaveABatch) {
  const std::string convolution =
      "  %n : NoneType = prim::Constant()\n  %z : int = prim::Constant[value=0]()\n  %g : int = prim::Constant[value=1]()\n"
      "  %no : bool = prim::Constant[value=0]()\n  %l : int[] = prim::ListConstruct(%z, %z)\n"
      "  %y : Tensor = aten::_convolution(%x, %w, %n, %s, %s, %s, %no, %l, %g, %no, %no, %no, %no)\n";
  read("  %s : int[] = prim::Constant[value=[1, 1]]()\n" + convolution);
  EXPECT_EQ(rank("x"), 4);
  EXPECT_TRUE(proven("x"));
  read("  %s : int[] = prim::Constant[value=[1]]()\n" + convolution);
  EXPECT_EQ(rank("x"), 3);
  EXPECT_FALSE(proven("x"));
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
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, AHintThatNoConvolutionTakesIsNone) {
  read(
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n",
      {2});
  EXPECT_EQ(rank("y"), 4);
}

TEST_F(RanksOf, FlattenFromDimensionOneGivesAMatrix) {
  read(
      "  %a : int = prim::Constant[value=1]()\n  %b : int = prim::Constant[value=-1]()\n"
      "  %y : Tensor = aten::flatten(%x, %a, %b)\n");
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(proven("y"));
}

TEST_F(RanksOf, FlattenOfLeadingDimensionsTakesSomeAway) {
  read(
      "  %a : int = prim::Constant[value=0]()\n  %b : int = prim::Constant[value=1]()\n"
      "  %y : Tensor = aten::flatten(%x, %a, %b)\n",
      {3});
  EXPECT_EQ(rank("y"), 2);
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, FlattenCountsFromTheEndsThatItNames) {
  const auto flattened = [this](const char* first, const char* last, int64_t hint) {
    read(std::string("  %a : int = prim::Constant[value=") + first + "]()\n  %b : int = prim::Constant[value=" + last +
             "]()\n  %y : Tensor = aten::flatten(%x, %a, %b)\n",
         {hint});
    return rank("y");
  };
  EXPECT_EQ(flattened("1", "2", 5), 4);
  EXPECT_EQ(flattened("-3", "-2", 5), 4);
  EXPECT_EQ(flattened("1", "-3", 5), 4);
  EXPECT_TRUE(proven("y"));
  EXPECT_EQ(flattened("-3", "3", 5), std::nullopt);
  EXPECT_EQ(flattened("0", "0", 0), std::nullopt);  // a number becomes a vector
}

TEST_F(RanksOf, ViewHasTheLengthOfItsSizes) {
  read(
      "  %a : int = prim::Constant[value=0]()\n  %n : int = aten::size(%x, %a)\n  %m : int = prim::Constant[value=-1]()\n"
      "  %l : int[] = prim::ListConstruct(%n, %m)\n  %y : Tensor = aten::view(%x, %l)\n");
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(proven("y"));
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
  EXPECT_TRUE(proven("y"));
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
  EXPECT_TRUE(proven("y"));
  read(flatten + "  %z : Tensor = aten::unsqueeze_(%y, %a)\n");
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, WhatTheGraphChecksNowIsCertain) {
  read("  %y : Tensor = aten::relu(%x)\n");
  ranks->prove(values.at("x"), graph->block(), 2);
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(proven("y"));
}

TEST_F(RanksOf, AProductIsNoSurerThanItsFactors) {
  const std::string product =
      "  %o : int = prim::Constant[value=1]()\n  %f : int = prim::Constant[value=4]()\n  %l : int[] = prim::ListConstruct(%o, "
      "%f)\n"
      "  %v : Tensor = aten::view(%w, %l)\n  %y : Tensor = aten::mul(%v, %x)\n";
  read(product);
  EXPECT_EQ(rank("y"), std::nullopt);
  read(product, {2});
  EXPECT_TRUE(proven("v"));
  EXPECT_EQ(rank("y"), 2);
  EXPECT_TRUE(is(Strength::hinted, "y"));
  ranks->prove(values.at("x"), graph->block(), 2);
  EXPECT_TRUE(proven("y"));
}

TEST_F(RanksOf, AStaticFactorMayHaveMoreDimensions) {
  const std::string product = "  %matrix : Tensor = aten::nonzero(%w)\n  %y : Tensor = aten::mul(%x, %matrix)\n";
  read(product, {1});
  EXPECT_EQ(rank("y"), 2);
  read(product + "  %d : int[] = prim::Constant[value=[0, 1, 2]]()\n  %z : Tensor = aten::permute(%y, %d)\n");
  EXPECT_EQ(rank("y"), 3);
  EXPECT_EQ(rank("x"), std::nullopt);
}

TEST_F(RanksOf, WhatIsBroadcastToAValueWithFourDimensionsHasFour) {
  const std::string gate =
      "  %n : NoneType = prim::Constant()\n  %s : int[] = prim::Constant[value=[1, 1]]()\n  %g : int = "
      "prim::Constant[value=1]()\n  %c : Tensor = aten::conv2d(%x, %w, %n, %s, %s, %s, %g)\n";
  read(gate +
       "  %l : int[] = prim::ListConstruct(%g, %g, %g, %g)\n  %v : Tensor = aten::view(%w, %l)\n"
       "  %y : Tensor = aten::mul(%c, %v)\n");
  EXPECT_EQ(rank("y"), 4);
  EXPECT_TRUE(proven("y"));
  EXPECT_FALSE(proven("c"));
  read(gate +
       "  %l : int[] = prim::ListConstruct(%g, %g, %g)\n  %v : Tensor = aten::view(%w, %l)\n"
       "  %y : Tensor = aten::mul(%c, %v)\n");
  EXPECT_EQ(rank("y"), 4);
  EXPECT_FALSE(proven("y"));
}

TEST_F(RanksOf, ANumberCanBeReducedAsAVectorCan) {
  const std::string sum =
      "  %d : int[] = prim::Constant[value=[0]]()\n  %k : bool = prim::Constant[value=0]()\n  %n : NoneType = prim::Constant()\n"
      "  %y : Tensor = aten::sum(%x, %d, %k, %n)\n";
  for (const int64_t hint : {0, 1}) {
    read(sum, {hint});
    EXPECT_EQ(rank("y"), 0);
  }
  const std::string all = "  %d : int[] = prim::ListConstruct()\n";
  read(all + sum.substr(sum.find('\n') + 1), {3});
  EXPECT_EQ(rank("y"), 0);
}

TEST_F(RanksOf, AnEmptyVectorMayBeJoinedWithAnyValue) {
  const std::string cat =
      "  %o : int = prim::Constant[value=1]()\n  %l : Tensor[] = prim::ListConstruct(%x, %w)\n"
      "  %y : Tensor = aten::cat(%l, %o)\n";
  const std::string order = "  %d : int[] = prim::Constant[value=[0, 1, 2]]()\n";
  read(cat + order + "  %z : Tensor = aten::permute(%w, %d)\n");
  EXPECT_TRUE(proven("y"));
  EXPECT_EQ(rank("x"), std::nullopt);
  read(cat + order + "  %z : Tensor = aten::permute(%y, %d)\n");
  EXPECT_EQ(rank("x"), std::nullopt);
  EXPECT_EQ(rank("w"), std::nullopt);
}

// What an If does in %z, whose condition is %c.
std::string branch_of(const std::string& nodes) {
  return "  %d : int[] = prim::Constant[value=[1, 0]]()\n  %t : int = aten::dim(%w)\n  %c : bool = aten::Bool(%t)\n"
         "  %z : Tensor = prim::If(%c)\n    block0():\n" +
         nodes + "      -> (%v)\n    block1():\n      -> (%x)\n";
}

TEST_F(RanksOf, AProofInABranchHoldsThereAlone) {
  read(branch_of("      %v : Tensor = aten::permute(%x, %d)\n") + "  %y : Tensor = aten::relu(%x)\n");
  EXPECT_EQ(rank("x"), std::nullopt);
  EXPECT_EQ(rank("y"), std::nullopt);
  EXPECT_TRUE(proven("v"));
  EXPECT_EQ(ranks->of(values.at("x"), branch())->number, 2);
}

TEST_F(RanksOf, WhatIsTiedInABranchIsTiedThereAlone) {
  const std::string tie =
      "      %k : Tensor = aten::reshape_as(%x, %w)\n      %m : Tensor = aten::relu(%w)\n      %v : Tensor = aten::permute(%k, "
      "%d)\n";
  read(branch_of(tie) + "  %y : Tensor = aten::relu(%w)\n");
  EXPECT_TRUE(proven("m"));
  EXPECT_EQ(rank("y"), std::nullopt);
}

TEST_F(RanksOf, AProofOutsideHoldsInABranch) {
  read("  %o : int[] = prim::Constant[value=[0, 2, 1]]()\n  %u : Tensor = aten::relu(%x)\n" +
       branch_of("      %v : Tensor = aten::relu(%u)\n") + "  %y : Tensor = aten::permute(%x, %o)\n");
  EXPECT_EQ(rank("v"), 3);
  EXPECT_TRUE(proven("v"));
}

TEST_F(RanksOf, ACheckInABranchTellsOfWhatIsTiedOutside) {
  const std::string check =
      "      %f : int = prim::Constant[value=4]()\n      %a : int = aten::dim(%u)\n      %b : bool = aten::ne(%a, %f)\n"
      "      %s : str = prim::Constant[value=\"no\"]()\n      prim::If(%b)\n        block0():\n"
      "          prim::RaiseException(%s, %s)\n          -> ()\n        block1():\n          -> ()\n"
      "      %v : Tensor = aten::relu(%x)\n";
  read("  %u : Tensor = aten::relu(%x)\n" + branch_of(check) + "  %y : Tensor = aten::relu(%x)\n");
  EXPECT_EQ(rank("v"), 4);
  EXPECT_EQ(ranks->of(values.at("x"), branch())->number, 4);
  EXPECT_EQ(rank("y"), std::nullopt);
}

TEST_F(RanksOf, TheFirstValueOfAKindIsAskedInItsPlace) {
  read("  %o : int = prim::Constant[value=0]()\n  %u : Tensor = aten::unsqueeze(%x, %o)\n" +
       branch_of("      %v : Tensor = aten::relu(%u)\n") + "  %y : Tensor = aten::relu(%w)\n");
  const auto witness = ranks->witness(values.at("v"), branch());
  EXPECT_EQ(witness.value, values.at("x"));
  EXPECT_EQ(witness.difference, 1);
}

TEST_F(RanksOf, WhatABranchMakesIsNotAskedOutside) {
  read(branch_of("      %r : Tensor = aten::relu(%w)\n      %v : Tensor = aten::reshape_as(%x, %r)\n") +
       "  %y : Tensor = aten::nonzero(%x)\n");
  EXPECT_EQ(ranks->witness(values.at("v"), branch()).value, values.at("w"));
  EXPECT_EQ(ranks->witness(values.at("y"), graph->block()).value, values.at("y"));
}

// norm(linear(y)), where y is made of x [3, 5, 4].
class RankBehind : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& statements, int64_t columns) {
    Model model;
    model.layer("linear", {6, columns}, 6).norm("norm", 6).parameter("square.weight", at::randn({4, 4}, at::kDouble));
    return model.forward(statements + "\ny = torch.linear(y, self.linear.weight, self.linear.bias)\nreturn " +
                         batch_norm("norm", "y"));
  }

  const at::Tensor x = at::randn({3, 5, 4}, at::kDouble);
};

TEST_F(RankBehind, IsKnown) {
  const std::vector<std::pair<std::string, int64_t>> all = {
      {"y, i = x.max(1)", 4},
      {"y, i = torch.median(x, -2)", 4},
      {"y, i = x.kthvalue(2, 1)", 4},
      {"y = x.var([1])", 4},
      {"y = x.std(1)", 4},
      {"y = x.prod(1)", 4},
      {"y = x.logsumexp([1])", 4},
      {"y = x.argmax(1).to(x.dtype)", 4},
      {"y, i = x[:, 0].topk(2)", 2},
      {"y, i = x[:, 0].sort(1)", 4},
      {"y = x[:, 0].index_select(1, x[0, 0].argsort())", 4},
      {"y = x[:, 0].gather(1, x[:, 1].argmax(1, True))", 1},
      {"y = torch.matmul(x[:, 0], x[0].t())", 5},
      {"y = torch.matmul(x.transpose(1, 2), x)[:, 0]", 4},
      {"y = torch.matmul(x, x[0, 0])", 5},
      {"y = torch.matmul(x[:, 0], self.square.weight.t())", 4},
      {"y = torch.einsum('bij,kj -> bk', [x, self.square.weight])", 4},
      {"y = torch.stack([x[:, 0, 0], x[:, 1, 0]], 1)", 2},
      {"y = torch.one_hot(x[:, 0].argmax(1), 4).to(x.dtype)", 4},
      {"y = x[:, 0].unfold(1, 2, 2)[:, :, 0]", 2},
      {"y = x.diagonal(0, 1, 2)", 4},
      {"y = x[:, 0].tile([1, 2])", 8},
      {"y = torch.glu(x[:, 0], 1)", 2},
      {"y = x.movedim(1, 2)[:, :, 0]", 4},
      {"y = x.mean([1], True).squeeze(1)", 4},
      {"y = torch.adaptive_avg_pool1d(x, [1]).squeeze(-1)", 5},
      {"y = torch.adaptive_avg_pool1d(x, [1]).squeeze()", 5},
      {"y = x.mean([1], True).squeeze()", 4},
      {"y = x[:, 0]\nif bool(x.sum() > 0):\n  y = x.mean([1])", 4},
      {"y = x\nif x.dim() == 3:\n  y = x.mean([1])", 4},
      {"y = x\nif x.dim() != 2:\n  y = x.mean([1])", 4},
  };
  for (const auto& [statements, columns] : all) {
    SCOPED_TRACE(statements);
    expect_folded(behind(statements, columns).module, {x}, "norm", "linear", with_rank(3));
  }
}

TEST_F(RankBehind, IsKnownBehindAttention) {
  const auto attention = c10::Symbol::fromQualString("aten::scaled_dot_product_attention");
  if (jit::getAllOperatorsFor(attention).empty()) GTEST_SKIP() << "this LibTorch has no such operator";
  expect_folded(behind("y = torch.scaled_dot_product_attention(x, x, x)[:, 0]", 4).module, {x}, "norm", "linear", with_rank(3));
}

TEST_F(RankBehind, IsUnknown) {
  const std::vector<std::pair<std::string, int64_t>> all = {
      {"y = x.mean([1], True).squeeze(x.size(2) - 3)", 4},
      {"y = x[:, :1].squeeze()", 4},
      {"y = torch.adaptive_avg_pool1d(x, [x.size(2) - 3]).squeeze(-1)", 5},
      {"y = torch.einsum('...ij -> ...j', [x])", 4},
      {"y = x[:, 0]\nif bool(x.sum() > 1e9):\n  y = x", 4},
  };
  for (const auto& [statements, columns] : all) {
    SCOPED_TRACE(statements);
    expect_kept(behind(statements, columns).module, {x}, "norm", Reason::rank_unknown, "", with_rank(3));
  }
}

// The rank that decided is that of the example alone.
TEST_F(RankBehind, IsCheckedWhereAnExampleDecided) {
  FoldResult result =
      expect_folded(behind("y = x\nif x.dim() == 3:\n  y = x.mean([1])", 4).module, {x}, "norm", "linear", with_rank(3));
  EXPECT_THROW(result.module.forward({at::randn({3, 6, 5, 4}, at::kDouble)}), std::exception);
}

}  // namespace
}  // namespace bnfold::test
