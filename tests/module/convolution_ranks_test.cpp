#include "module/convolution_ranks.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// What makes the value whose rank is asked in u = conv1d(x); v = conv1d(u), with `between` in front of it.
std::string maker_of_asked(const std::string& between, const std::string& asked) {
  const auto graph = std::make_shared<jit::Graph>();
  jit::parseIR(
      "graph(%x : Tensor, %w : Tensor):\n  %none : NoneType = prim::Constant()\n  %zero : int = prim::Constant[value=0]()\n"
      "  %one : int = prim::Constant[value=1]()\n  %ones : int[] = prim::Constant[value=[1]]()\n"
      "  %zeros : int[] = prim::Constant[value=[0]]()\n"
      "  %u : Tensor = aten::conv1d(%x, %w, %none, %ones, %zeros, %ones, %one)\n"
      "  %v : Tensor = aten::conv1d(%u, %w, %none, %ones, %zeros, %ones, %one)\n" +
          between + "  %d : int = aten::dim(%" + asked + ")\n  return (%d)",
      graph.get());
  ask_ranks_before_convolutions(*graph);
  return graph->outputs()[0]->node()->input()->node()->kind().toQualString();
}

TEST(ConvolutionRanks, AreAskedInFrontOfAllConvolutions) {
  EXPECT_EQ(maker_of_asked("", "v"), "prim::Param");
  EXPECT_EQ(maker_of_asked("  %r : Tensor = aten::relu(%v)\n", "r"), "aten::relu");
}

TEST(ConvolutionRanks, AreAskedWhereTheyAreThatDimensionsChangeInPlace) {
  EXPECT_EQ(maker_of_asked("  %r : Tensor = aten::unsqueeze_(%v, %zero)\n", "v"), "aten::conv1d");
}

}  // namespace
}  // namespace bnfold::test
