// Bounds overwrite what they bound where nobody can see it.
#include "plan/memory_reuse.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "fold_batch_norms.h"
#include "support/close.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class BoundsInPlace : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(9); }

  // y = f(x), y --> norm --> relu --> conv
  static Model bounded(const std::string& statements) {
    Model model;
    model.layer("conv", {5, 8, 3, 3}, 5).norm("norm", 8);
    return model.forward(statements);
  }

  static std::string layer(const std::string& value) {
    return conv("conv", fmt::format("torch.relu({})", batch_norm("norm", value)));
  }

  // What a fold alone makes is out of place, for whoever reads it.
  static torch::jit::Module frozen(const Model& model, const Inputs& inputs) {
    const FoldResult plain = expect_folded(model.module, inputs, "norm", "conv");
    EXPECT_EQ(count_nodes(plain.module, "aten::maximum"), 1);
    EXPECT_EQ(count_nodes(plain.module, "aten::minimum"), 1);
    const FoldResult result = bnfold::freeze(model.module);
    expect_same_output(model.module, result.module, inputs);
    return result.module;
  }

  static void expect_in_place(const torch::jit::Module& module, bool in_place) {
    EXPECT_EQ(count_nodes(module, "aten::maximum"), in_place ? 0 : 1);
    EXPECT_EQ(count_nodes(module, "aten::clamp_min_"), in_place ? 1 : 0);
    EXPECT_EQ(count_nodes(module, "aten::clamp_max_"), 1);  // what maximum made is read by nobody else
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble) * 2;
};

TEST_F(BoundsInPlace, WhereAConcatenationIsReadByNobodyElse) {
  const Model model = bounded("y = torch.cat([x, 2 * x], 1)\nreturn " + layer("y"));
  expect_in_place(frozen(model, {x}), true);
}

TEST_F(BoundsInPlace, WhereOthersReadItsSizesOnly) {
  const Model model = bounded("y = torch.cat([x, 2 * x], 1)\nreturn " + layer("y") + " * y.size(1)");
  expect_in_place(frozen(model, {x}), true);
}

TEST_F(BoundsInPlace, NotWhereTheInputOfTheModuleIsBounded) {
  const Model model = bounded("return " + layer("x"));
  expect_in_place(frozen(model, {x.repeat({1, 2, 1, 1})}), false);
}

TEST_F(BoundsInPlace, NotWhereAnotherReads) {
  const Model model = bounded("y = torch.cat([x, 2 * x], 1)\nreturn " + layer("y") + " + y.mean()");
  expect_in_place(frozen(model, {x}), false);
}

TEST_F(BoundsInPlace, NotWhereAViewIsReturned) {
  const Model model = bounded("y = torch.cat([x, 2 * x], 1)\nreturn y.view(-1), " + layer("y"));
  expect_in_place(frozen(model, {x}), false);
}

TEST_F(BoundsInPlace, NotInALoopThatReadsItAgain) {
  const Model model =
      bounded("y = torch.cat([x, 2 * x], 1)\nz = x.mean()\nfor i in range(x.size(0)):\n  z = z + " + layer("y") + "\nreturn z");
  expect_in_place(frozen(model, {x}), false);
}

TEST_F(BoundsInPlace, InALoopThatMakesItAnew) {
  const Model model =
      bounded("z = x.mean()\nfor i in range(x.size(0)):\n  y = torch.cat([x, x + i], 1)\n  z = z + " + layer("y") + "\nreturn z");
  expect_in_place(frozen(model, {x}), true);
}

TEST_F(BoundsInPlace, LeavesGradientsAsTheyAre) {
  Model model = bounded("y = torch.cat([x, 2 * x], 1)\nreturn " + layer("y"));
  FoldResult result = fold_before_freezing(model.module, {});
  const auto gradient = [this](torch::jit::Module& module) {
    const at::Tensor input = x.clone().requires_grad_(true);
    module.forward({input}).toTensor().square().sum().backward();
    return input.grad();
  };
  EXPECT_LE(relative_error(gradient(result.module), gradient(model.module)), 1e-12);
}

// What is overwritten in a branch has new memory there alone; who asks for its sizes behind the branch asks what stood before it.
TEST(UseNewMemory, LeavesThoseBehindABranchWhoAskForSizesAlone) {
  Model model;
  model.layer("conv", {5, 4, 3, 3}, 5).norm("norm", 5);
  model.forward(fmt::format("y = {}\nif bool(x.sum() > 0):\n  y.add_(1)\nreturn x.mean() * y.dim()",
                            batch_norm("norm", conv("conv", "x"))));
  const at::Tensor x = at::rand({2, 4, 6, 6}, at::kDouble);
  for (const at::Tensor& input : {x, -x}) {
    const FoldResult result = expect_unharmed(model.module, {input});
    result.module.get_method("forward").graph()->lint();
  }
}

}  // namespace
}  // namespace bnfold::test
