#include "module/convolution_ranks.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>

#include "bnfold/bnfold.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

TEST(ConvolutionRanks, AreThoseOfWhatOneImageHas) {
  Model model;
  model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 4);
  model.forward("y = " + conv("conv", "x") + "\nif y.dim() == 4:\n  y = " + batch_norm("norm", "y") + "\nreturn y, y.dim()");
  jit::Module folded = fold(model.module).module;
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{3, 5, 5}, {2, 3, 5, 5}}) {
    for (int run = 0; run < 3; ++run) {
      const auto outputs = folded.forward({at::randn(sizes, at::kDouble)}).toTuple();
      EXPECT_EQ(outputs->elements()[1].toInt(), static_cast<int64_t>(sizes.size()));
      EXPECT_EQ(outputs->elements()[0].toTensor().dim(), static_cast<int64_t>(sizes.size()));
    }
  }
}

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
