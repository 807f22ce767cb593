// What is proven of the values of a graph.
#include "fuse/facts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class ProvenFacts : public ::testing::Test {
 protected:
  // conv [6, 4, 3, 3], point [6, 4, 1, 1], up [6, 6, 2, 2] and wide [9, 6]
  static std::shared_ptr<jit::Graph> graph_of(const std::string& statements) {
    Model model;
    model.layer("conv", {6, 4, 3, 3}, 6).layer("point", {6, 4, 1, 1}, 6).layer("up", {6, 6, 2, 2}, 6).layer("wide", {9, 6}, 9);
    std::string source = "def forward(self, x, p):\n";
    for (const std::string& line : lines(statements + "\nreturn a, b")) source += "  " + line + "\n";
    model.define(source);
    model.module.to(at::kFloat);
    model.module.eval();
    return jit::freeze(model.module, c10::nullopt, /*optimize_numerics=*/false).get_method("forward").graph();
  }

  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> lines(1);
    for (const char letter : text) {
      if (letter == '\n') lines.emplace_back();
      if (letter != '\n') lines.back() += letter;
    }
    return lines;
  }

  // Of x and p, images, in a run.
  static Facts facts_of(const jit::Graph& graph) {
    Observations observed;
    observed[graph.inputs()[1]] = {2, 4, 9, 8};
    observed[graph.inputs()[2]] = {2, 4, 9, 8};
    return Facts(graph, observed);
  }

  // Of a and b, which the statements make.
  template <typename Ask>
  static bool holds(const std::string& statements, const Ask& ask) {
    const auto graph = graph_of(statements);
    const jit::Node* both = graph->outputs()[0]->node();
    return ask(facts_of(*graph), both->input(0), both->input(1));
  }

  static bool one_size(const std::string& statements) {
    return holds(statements, [](const Facts& facts, auto* a, auto* b) { return facts.have_one_size(a, b); });
  }

  static bool one_dtype(const std::string& statements) {
    return holds(statements, [](const Facts& facts, auto* a, auto* b) { return facts.have_one_dtype(a, b); });
  }

  static std::string conv(int padding, int stride = 1) {
    return fmt::format("torch.conv2d(x, self.conv.weight, self.conv.bias, [{1}, {1}], [{0}, {0}])", padding, stride);
  }
  static std::string point(int stride = 1) {
    return fmt::format("torch.conv2d(x, self.point.weight, self.point.bias, [{0}, {0}])", stride);
  }
};

TEST_F(ProvenFacts, ConvolutionsThatMoveAlikeHaveOneSize) {
  EXPECT_TRUE(one_size("a = " + conv(1) + "\nb = " + point()));
  EXPECT_TRUE(one_size("a = " + conv(1, 2) + "\nb = " + point(2)));
  EXPECT_FALSE(one_size("a = " + conv(0) + "\nb = " + point()));
  EXPECT_FALSE(one_size("a = " + conv(0, 2) + "\nb = " + point(2)));
}

TEST_F(ProvenFacts, InputsHaveSizesOfTheirOwn) {
  EXPECT_FALSE(one_size("a = torch.exp(x)\nb = torch.exp(p)"));
  EXPECT_TRUE(one_size("a = torch.exp(x)\nb = torch.tanh(x)"));
  EXPECT_FALSE(one_size("a = torch.exp(x)\nb = a * p"));
}

TEST_F(ProvenFacts, PoolingAndInterpolation) {
  EXPECT_TRUE(one_size("a = torch.max_pool2d(x, [3, 3], [2, 2], [1, 1])\nb = torch.exp(x)[:, :, ::2, ::2]"));
  EXPECT_FALSE(one_size("a = torch.max_pool2d(x, [3, 3], [2, 2], [1, 1])\nb = torch.exp(x)[:, :, ::3, ::3]"));
  EXPECT_FALSE(one_size("a = torch.max_pool2d(x, [2, 2], [2, 2], [0, 0], [1, 1], True)\nb = torch.max_pool2d(x, [2, 2])"));
  const std::string up = "y = torch.max_pool2d(" + conv(1) +
                         ", [2, 2])\na = torch.conv_transpose2d(y, self.up.weight, self.up.bias, [2, 2])\nb = "
                         "torch.upsample_nearest2d({}, None, [2.0, 2.0])";
  EXPECT_TRUE(one_size(std::string(up).replace(up.find("{}"), 2, "torch.exp(y)")));
  EXPECT_FALSE(one_size(std::string(up).replace(up.find("{}"), 2, conv(1))));
  EXPECT_FALSE(one_size("a = torch.upsample_nearest2d(torch.max_pool2d(x, [2, 2]), None, [2.0, 2.0])\nb = torch.exp(x)"));
}

TEST_F(ProvenFacts, BroadcastingNeedsAOneOrAKnownNumber) {
  EXPECT_TRUE(one_size("a = torch.exp(x)\nb = a * torch.mean(x, [2, 3], True)"));
  EXPECT_TRUE(one_size("a = torch.exp(x)\nb = torch.mean(x, 0, True) * a"));
  EXPECT_FALSE(one_size("a = torch.mean(x, 0, True)\nb = torch.exp(x) * a"));
  EXPECT_TRUE(one_size("a = " + conv(1) + "\nb = a * self.wide.weight[:6, :1].unsqueeze(2)"));
}

TEST_F(ProvenFacts, ViewsBySizesThatWereRead) {
  const std::string rows = "y = " + conv(1) + "\na = torch.exp(y)\nr = y.flatten(2).transpose(1, 2)\n";
  EXPECT_TRUE(one_size(rows + "b = r.reshape(x.size(0), y.size(2), y.size(3), 6).permute(0, 3, 1, 2)"));
  EXPECT_TRUE(one_size(rows + "b = r.transpose(1, 2).reshape(x.size(0), -1, y.size(2), y.size(3))"));
  EXPECT_FALSE(one_size(rows + "b = r.reshape(x.size(0), y.size(3), y.size(2), 6).permute(0, 3, 1, 2)"));
  EXPECT_FALSE(one_size(rows + "b = r.reshape(p.size(0), y.size(2), y.size(3), 6).permute(0, 3, 1, 2)"));
  EXPECT_TRUE(one_size("y = " + conv(1) +
                       "\na = torch.exp(y)\nb = y.view(x.size(0) * 2, 3, y.size(2), y.size(3)).view_as(y)[:, :6] * a"));
}

TEST_F(ProvenFacts, ConcatenationsAndTheirParts) {
  EXPECT_TRUE(one_size("a = " + conv(1) + "\nb = torch.cat([a, torch.exp(a)], 1)[:, 6:]"));
  EXPECT_FALSE(one_size("a = " + conv(1) + "\nb = torch.cat([a, torch.exp(a)], 1)[:, 5:]"));
  EXPECT_TRUE(one_size("y = torch.exp(" + conv(1) + ")\na, c = y.chunk(2, 1)\nb = y[:, 3:] * 1.0"));
  EXPECT_FALSE(one_size("a = torch.cat([x, torch.exp(x)], 1)\nb = torch.cat([x, p], 1)"));
}

TEST_F(ProvenFacts, PiecesOfOneDimensionFewer) {
  const std::string pieces = "y = " + conv(1) + ".reshape(x.size(0), 3, 2, -1)\nq, k, v = y.unbind({})\n";
  const auto along = [&](const char* dimension) { return std::string(pieces).replace(pieces.find("{}"), 2, dimension); };
  EXPECT_TRUE(one_size(along("1") + "a = torch.exp(q)\nb = torch.stack([y.select(1, 0), v], 1)[:, 1]"));
  EXPECT_FALSE(one_size(along("1") + "a = torch.exp(q)\nb = torch.stack([y.select(2, 0), y.select(2, 1)], 1)[:, 1]"));
}

TEST_F(ProvenFacts, ProductsOfMatrices) {
  const std::string rows = "r = " + conv(1) + ".flatten(2)\na = torch.exp(r)\n";
  EXPECT_TRUE(one_size(rows + "b = torch.bmm(torch.bmm(r, r.transpose(1, 2)), r)"));
  EXPECT_TRUE(one_size(rows + "b = torch.baddbmm(r[:, :1], torch.bmm(r, r.transpose(1, 2)), r)"));
  EXPECT_FALSE(one_size(rows + "b = torch.bmm(r.transpose(1, 2), r)"));
}

TEST_F(ProvenFacts, PixelsBecomeChannelsAndChannelsPixels) {
  EXPECT_TRUE(one_size("a = torch.exp(x)\nb = torch.pixel_unshuffle(torch.pixel_shuffle(" + conv(1) + "[:, :4], 2), 2)"));
  EXPECT_FALSE(one_size("a = torch.exp(x)\nb = torch.pixel_unshuffle(torch.pixel_shuffle(" + conv(1) + "[:, :4], 2), 1)"));
}

TEST_F(ProvenFacts, BordersThatAreReflected) {
  EXPECT_TRUE(one_size("a = torch.reflection_pad2d(x, [1, 1, 1, 1])[:, :, 2:]\nb = torch.pad(x, [1, 1, 1, 1])[:, :, 2:]"));
  EXPECT_FALSE(one_size("a = torch.reflection_pad2d(x, [1, 1, 1, 1])\nb = torch.pad(x, [1, 1, 2, 1])"));
}

TEST_F(ProvenFacts, BranchesThatAgree) {
  const std::string branches =
      "y = " + conv(1) + "\nif bool(x.sum() > 0):\n  b = torch.exp(y)\nelse:\n  b = {}\na = torch.tanh(y)";
  EXPECT_TRUE(one_size(std::string(branches).replace(branches.find("{}"), 2, "torch.relu(y)")));
  EXPECT_FALSE(one_size(std::string(branches).replace(branches.find("{}"), 2, "torch.relu(y)[:1]")));
}

TEST_F(ProvenFacts, BranchesOfWhichOneIsAssumedToHaveABatch) {
  const auto graph = graph_of(
      "y = [x, p]\nif bool(x.sum() > 0):\n  a = torch.conv2d(y[int(x.sum())], self.conv.weight)\nelse:\n  a = "
      "torch.conv2d(y[int(p.sum())], "
      "self.point.weight)\nb = torch.exp(a)");
  Facts facts(*graph, {});
  EXPECT_EQ(facts.rank_of(graph->outputs()[0]->node()->input(0)), std::nullopt);
}

TEST_F(ProvenFacts, WhatOverwritesElementsResizesNothing) {
  const std::string made = "a = torch.exp(x)\nb = torch.tanh(x)\nc = torch.zeros_like(x)\n";
  EXPECT_TRUE(one_size(made + "c[:, 0].copy_(x[:, 0])\nc.index_fill_(1, torch.tensor([1]), 2.0)\nb = b * c.sum()"));
  EXPECT_FALSE(one_size(made + "c.resize_([1])\nb = b * c.sum()"));
}

TEST_F(ProvenFacts, NothingWhereSomethingResizes) {
  EXPECT_FALSE(one_size("a = torch.exp(x)\nb = torch.tanh(x)\nc = torch.sigmoid(x)\nc.unsqueeze_(0)\nb = b * c.sum()"));
  EXPECT_FALSE(one_size("a = torch.exp(x)\nb = torch.tanh(x)\nc = torch.empty([1])\ntorch.sigmoid(x, out=c)\nb = b * c.sum()"));
  EXPECT_TRUE(one_size("a = torch.exp(x)\nb = torch.tanh(x)\nc = torch.sigmoid(x)\nc.add_(1)\nb = b * c.sum()"));
}

TEST_F(ProvenFacts, LayersProveTheDtypeOfWhatTheyReadAndMake) {
  EXPECT_TRUE(one_dtype("a = " + conv(1) + "\nb = torch.exp(x)"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = torch.exp(p)"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = torch.exp(x).double()"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = torch.argmax(a, 1)"));
  EXPECT_TRUE(one_dtype("a = " + conv(1) + "\nb = torch.relu(a * 2 + 1.5) / a.mean()"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = a > 0"));
}

TEST_F(ProvenFacts, ABiasTellsNoDtypeOfALayer) {
  const std::string layer = "a = torch.linear(p, p[0, 0], self.wide.bias)\n";
  EXPECT_FALSE(one_dtype(layer + "b = " + conv(1)));
  EXPECT_TRUE(one_dtype(layer + "b = torch.neg(p)"));
}

TEST_F(ProvenFacts, AnArgumentStatesTheDtype) {
  EXPECT_TRUE(one_dtype("a = " + conv(1) + "\nb = torch.sum(a, [1], dtype=6)"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = torch.sum(a, [1], dtype=7)"));
  EXPECT_FALSE(one_dtype("a = torch.exp(p)\nb = torch.sum(p, [1])"));
  EXPECT_TRUE(one_dtype("a = " + conv(1) + "\nb = torch.where(p > 0, a, 2.0)"));
  EXPECT_FALSE(one_dtype("a = " + conv(1) + "\nb = torch.where(p > 0, a, torch.neg(p))"));
}

TEST_F(ProvenFacts, TheModulusOfAComplexNumberIsReal) {
  EXPECT_TRUE(one_dtype("a = " + conv(1) + "\nb = torch.abs(a)"));
  EXPECT_FALSE(one_dtype("a = torch.mean(p, [2])\nb = torch.abs(a)"));
}

TEST_F(ProvenFacts, ALayerInABranchProvesNothingOutsideOfIt) {
  const std::string branch = "b = torch.exp(p)\nif bool(p.sum() > 0):\n  b = torch.conv2d(p, self.conv.weight)\na = " + conv(1);
  EXPECT_FALSE(one_dtype(branch + " * 1.0\nb = torch.exp(p)"));
}

TEST_F(ProvenFacts, SoftmaxTakesNoIntegersAndSigmoidDoes) {
  EXPECT_TRUE(one_dtype("a = torch.softmax(p, 1)\nb = torch.sigmoid(p)"));
  EXPECT_FALSE(one_dtype("a = torch.exp(p)\nb = torch.sigmoid(p)"));
}

TEST_F(ProvenFacts, LayersProveTheChannelsOfWhatTheyRead) {
  const std::string cut = "[:, :4]\nb = torch.exp(x)\n";
  EXPECT_TRUE(one_size("a = " + conv(1) + cut));
  EXPECT_FALSE(one_size("a = " + conv(1) + "[:, :4]\nb = torch.exp(p)"));
  EXPECT_FALSE(one_size("if bool(x.sum() > 0):\n  a = " + point() + "[:, :4]\nelse:\n  a = torch.tanh(x)\nb = torch.exp(x)"));
}

TEST_F(ProvenFacts, TheRankOfAnInputIsAssumedAndChecked) {
  const auto graph = graph_of("a = " + conv(1) + "\nb = torch.exp(a)");
  const jit::Value* a = graph->outputs()[0]->node()->input(0);
  Facts facts = facts_of(*graph);
  EXPECT_EQ(facts.rank_of(a), 4);
  EXPECT_EQ(facts.size_of(a, 1), 6);
  EXPECT_EQ(facts.size_of(a, 0), std::nullopt);
  facts.insert_checks();
  EXPECT_EQ(graph->toString().find("prim::RaiseException"), std::string::npos);
  facts.rely_on_sizes(a, graph->block());
  facts.rely_on_sizes(graph->outputs()[0]->node()->input(1), graph->block());
  facts.insert_checks();
  const std::string text = graph->toString();
  EXPECT_NE(text.find("prim::RaiseException"), std::string::npos);
  EXPECT_EQ(text.find("prim::RaiseException"), text.rfind("prim::RaiseException"));
}

TEST_F(ProvenFacts, AConvolutionWithoutAnExampleIsAssumedToReadABatch) {
  const auto graph = graph_of("a = " + conv(1) + "\nb = torch.exp(p)");
  const Facts facts(*graph, {});
  EXPECT_EQ(facts.rank_of(graph->outputs()[0]->node()->input(0)), 4);
  EXPECT_EQ(facts.rank_of(graph->outputs()[0]->node()->input(1)), std::nullopt);
}

}  // namespace
}  // namespace bnfold::test
