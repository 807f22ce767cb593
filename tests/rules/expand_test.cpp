#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class ExpandRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // The norm of an input [N, 3, 1, 1] before a convolution of what is repeated.
  static Model before(const std::string& repeated) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 3);
    return model.forward(
        fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "torch.tanh(x)"), repeated, conv("conv", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 1, 1}, at::kDouble);
};

TEST_F(ExpandRule, LetsTheAffinePassAhead) {
  for (const char* repeated : {"y.expand(2, 3, 5, 4)", "y.expand([-1, -1, 5, 4])", "y.expand([y.size(0), 3, 5, x.size(3)])",
                               "y.expand(6, 2, 3, 1, 1).flatten(0, 1)", "y.expand_as(torch.zeros([2, 3, 5, 4]))"}) {
    expect_folded(before(repeated).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(ExpandRule, DeclinesWhatMakesAnUnknownNumberOfDimensions) {
  Model model;
  model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 3);
  model.define(fmt::format("def forward(self, x, like):\n    y = {}.expand_as(like)\n    return {}\n",
                           batch_norm("norm", "torch.tanh(x)"), conv("conv", "y.flatten(0, -4)")));
  expect_stopped(model.module, {x, at::zeros({5, 2, 3, 5, 4})}, "norm", "forward", Reason::sizes_unknown, "how many dimensions",
                 with_rank(4));
}

TEST_F(ExpandRule, LeavesANormBehindIt) {
  Model model;
  model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 4);
  model.forward(fmt::format("y = {}.expand(2, 4, 5, 4)\nreturn {}", conv("conv", "x"), batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::no_rule_for_operator, "behind aten::expand");
}

}  // namespace
}  // namespace bnfold::test
