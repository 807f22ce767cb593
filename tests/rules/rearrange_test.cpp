#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class RearrangeRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& rearranged) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), rearranged, batch_norm("norm", "y")));
  }

  static Model before(const std::string& rearranged) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 3);
    return model.forward(
        fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "torch.tanh(x)"), rearranged, conv("conv", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(RearrangeRule, LetsTheAffinePassWhatMovesRows) {
  for (const char* rearranged :
       {"y.flip([2])", "torch.flip(y, [-1, 2])", "y.flip(0)", "y.roll(1, 2)", "torch.roll(y, [1, -1], [2, -1])",
        "y.index_select(2, torch.tensor([2, 0]))", "torch.index_select(y, -1, torch.arange(y.size(-1) - 1))"}) {
    expect_folded(behind(rearranged).module, {x}, "norm", "conv");
    expect_folded(before(rearranged).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(RearrangeRule, TurnsTheAffineWithTheChannels) {
  for (const char* rearranged : {"y.flip([1])", "torch.flip(y, [-3, 2])"}) {
    expect_folded(behind(rearranged).module, {x}, "norm", "conv");
    expect_folded(before(rearranged).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(RearrangeRule, DeclinesChannelsThatOtherwiseMove) {
  for (const char* rearranged : {"y.roll(1, 1)", "y.roll([1, 1], [2, -3])", "y.index_select(1, torch.tensor([1, 0, 2, 2]))"}) {
    expect_kept(behind(rearranged).module, {x}, "norm", Reason::affine_varies_elsewhere, "rearranged");
  }
  expect_stopped(before("y.roll(1, 1)").module, {x}, "norm", "forward", Reason::affine_varies_elsewhere, "rearranged",
                 with_rank(4));
}

TEST_F(RearrangeRule, DeclinesDimensionsThatAreNotKnown) {
  for (const char* rearranged : {"y.roll(1)", "y.flip([x.dim() - 1])", "y.index_select(x.dim() - 1, torch.tensor([0]))"}) {
    expect_kept(behind(rearranged).module, {x}, "norm", Reason::operand_not_constant, "dimensions");
  }
}

}  // namespace
}  // namespace bnfold::test
