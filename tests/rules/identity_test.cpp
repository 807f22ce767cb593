#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class IdentityRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model through(const std::string& expression) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
    return model.forward(fmt::format("y = torch.conv2d(x, self.conv.weight, None, [1, 1], [1, 1], [1, 1], 1)\ny = {}\nreturn {}",
                                     expression, batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 5, 5}, at::kDouble);
};

TEST_F(IdentityRule, LetsTheAffinePassDropoutInEvalMode) {
  expect_folded(through("torch.dropout(y, 0.5, False)").module, {x}, "norm", "conv");
}

TEST_F(IdentityRule, DeclinesDropoutInTrainingMode) {
  expect_kept(through("torch.dropout(y, 0.5, True)").module, {}, "norm", Reason::operand_not_constant, "dropout");
}

TEST_F(IdentityRule, LetsTheAffinePassContiguousAndDetach) {
  expect_folded(through("y.contiguous()").module, {x}, "norm", "conv");
  expect_folded(through("y.detach()").module, {x}, "norm", "conv");
}

}  // namespace
}  // namespace bnfold::test
