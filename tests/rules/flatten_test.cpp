#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class FlattenRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model through(const std::string& expression, int64_t channels = 5) {
    Model model;
    model.layer("linear", {5, 3}, 5).norm("norm", channels);
    return model.forward(fmt::format("y = torch.linear(x, self.linear.weight, self.linear.bias)\ny = {}\nreturn {}", expression,
                                     batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({4, 2, 3}, at::kDouble);
};

TEST_F(FlattenRule, LetsTheAffinePassFlattenedLeadingDimensions) {
  Options options;
  options.input_ranks = {3};
  expect_folded(through("y.flatten(0, 1)").module, {x}, "norm", "linear", options);
}

TEST_F(FlattenRule, DeclinesWhereTheChannelsAreFlattened) {
  expect_kept(through("y.flatten(1, 2)", 10).module, {x}, "norm", Reason::affine_varies_elsewhere, "flattened");
}

TEST_F(FlattenRule, DeclinesDimensionsCountedFromTheBack) {
  expect_kept(through("y.flatten(0, -2)").module, {x}, "norm", Reason::operand_not_constant, "front");
}

}  // namespace
}  // namespace bnfold::test
