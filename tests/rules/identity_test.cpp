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

TEST_F(IdentityRule, LetsTheAffinePassCopiesAndDetach) {
  expect_folded(through("y.contiguous()").module, {x}, "norm", "conv");
  expect_folded(through("y.clone()").module, {x}, "norm", "conv");
  expect_folded(through("y.detach()").module, {x}, "norm", "conv");
}

class IdentityForward : public IdentityRule {
 protected:
  static Model before_conv(const std::string& expression) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn torch.conv2d(y, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1)",
                                     batch_norm("norm", "x"), expression));
  }
};

TEST_F(IdentityForward, LetsTheAffinePass) {
  for (const char* expression :
       {"torch.dropout(y, 0.5, False)", "torch.dropout_(y, 0.5, False)", "torch.feature_dropout(y, 0.5, False)", "y.contiguous()",
        "y.clone()", "y.detach()", "torch.as_tensor(y)"}) {
    expect_folded(before_conv(expression).module, {x}, "norm", "conv");
  }
}

TEST_F(IdentityForward, DeclinesATensorThatIsAskedForInAnotherDtype) {
  expect_stopped(before_conv("torch.as_tensor(y, dtype=6).to(7)").module, {x}, "norm", "forward", Reason::no_rule_for_operator,
                 "as_tensor");
}

TEST_F(IdentityForward, DoesNoHarmToACopyThatIsWrittenInto) {
  expect_folded(before_conv("y.clone().mul_(2.0)").module, {x}, "norm", "conv");
  expect_unharmed(before_conv("y.clone() + y.mul_(2.0)").module, {x});
}

TEST_F(IdentityForward, DeclinesDropoutInTrainingMode) {
  expect_stopped(before_conv("torch.dropout(y, 0.5, True)").module, {}, "norm", "forward", Reason::operand_not_constant,
                 "dropout");
}

TEST_F(IdentityForward, DeclinesDropoutThatTrainsForAWhile) {
  expect_stopped(before_conv("torch.dropout(y, 0.5, x.size(0) > 5)").module, {x}, "norm", "forward", Reason::operand_not_constant,
                 "dropout");
}

}  // namespace
}  // namespace bnfold::test
