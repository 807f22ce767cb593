// bnfold::freeze, which stands in for torch::jit::freeze, and the pass that folds what is frozen as it runs.
#include <gtest/gtest.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include "bnfold/bnfold.h"
#include "bnfold/pass.h"
#include "graph/graph_walk.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class Freeze : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }
  void TearDown() override { unregister_pass(); }

  // A norm and a ReLU before their layer, which torch::jit::freeze leaves.
  static Model pre_activation() {
    Model model;
    model.layer("conv", {5, 4, 1, 1}, 5).norm("norm", 4);
    model.forward("y = torch.relu(" + batch_norm("norm", "x") + ")\nreturn torch.conv2d(y, self.conv.weight, self.conv.bias)");
    return model;
  }

  // The norms in the graph that the executor made of the module, once it has seen enough runs.
  int64_t norms_that_run(jit::Module module) const {
    const at::NoGradGuard no_grad;
    for (int run = 0; run < 3; ++run) module.forward({x});
    int64_t count = 0;
    for_each_node(jit::lastExecutedOptimizedGraph()->block(),
                  [&count](const jit::Node* node) { count += node->kind() == jit::aten::batch_norm ? 1 : 0; });
    return count;
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

TEST_F(Freeze, FoldsFirst) {
  const jit::Module module = pre_activation().module;
  const FoldResult result = bnfold::freeze(module);
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 0);
  EXPECT_EQ(result.module.parameters().size(), 0U);
  expect_same_output(module, result.module, {x});
}

// The module that came in stays, as do those that Python scripts.
TEST_F(Freeze, MakesNoTensorsThatOutliveTheResult) {
  const jit::Module module = pre_activation().module;
  std::vector<c10::weak_intrusive_ptr<at::TensorImpl>> tensors;
  {
    const FoldResult result = bnfold::freeze(module);
    for_each_node(result.module.get_method("forward").graph()->block(), [&tensors](const jit::Node* node) {
      const auto constant = node->kind() == jit::prim::Constant ? jit::toIValue(node->output()) : c10::nullopt;
      if (constant && constant->isTensor()) tensors.emplace_back(constant->toTensor().getIntrusivePtr());
    });
  }
  EXPECT_FALSE(tensors.empty());
  for (const auto& tensor : tensors) EXPECT_TRUE(tensor.expired());
}

TEST_F(Freeze, LeavesTheNormThatStockFreezeLeaves) {
  EXPECT_EQ(count_nodes(jit::freeze(pre_activation().module), "aten::batch_norm"), 1);
}

TEST_F(Freeze, KeepsATrainingNormThatStockFreezeTakesIntoItsConvolution) {
  Model model;
  model.layer("conv", {5, 4, 1, 1}, 5).norm("norm", 5);
  model.forward("return " + batch_norm("norm", conv("conv", "x"), /*training=*/true));
  EXPECT_EQ(count_nodes(jit::freeze(model.module), "aten::batch_norm"), 0);
  const FoldResult result = bnfold::freeze(model.module);
  EXPECT_EQ(count_nodes(result.module, "aten::batch_norm"), 1);
  expect_same_output(model.module, result.module, {x});
}

TEST_F(Freeze, KeepsANormThatStockFreezeTakesIntoALinearLayerAlongTheWrongDimension) {
  Model model;
  model.layer("linear", {4, 6}, 4).norm("norm", 4);
  model.forward("return " +
                batch_norm("norm", "torch.linear(torch.max_pool2d(x, [1, 1]), self.linear.weight, self.linear.bias)"));
  const FoldResult result = bnfold::freeze(model.module);
  expect_same_output(model.module, result.module, {x});
}

TEST_F(Freeze, FoldsFactorsIntoConvolutions) {
  Model model;
  model.layer("conv", {5, 4, 1, 1}, 5).parameter("factor", at::full({1, 1, 1, 1}, 3.0, at::kDouble));
  model.forward("return torch.sigmoid(" + conv("conv", "x") + " * self.factor)");
  EXPECT_EQ(count_nodes(bnfold::freeze(model.module).module, "aten::mul"), 0);
}

TEST_F(Freeze, KeepsTheDtypeThatAFactorGivesToAConvolution) {
  Model model;
  model.layer("conv", {5, 4, 1, 1}, 5).parameter("factor", at::full({1, 1, 1, 1}, 3.0, at::kDouble));
  model.forward(
      "return torch.conv2d(x, self.conv.weight, self.conv.bias).sigmoid() + torch.conv2d(x, self.conv.weight, None) * "
      "self.factor");
  model.module.attr("conv").toModule().to(at::kFloat);
  const FoldResult result = bnfold::freeze(model.module);
  const Inputs inputs = {x.to(at::kFloat)};
  jit::Module original = model.module;
  jit::Module frozen = result.module;
  EXPECT_EQ(frozen.forward(inputs).toTensor().scalar_type(), original.forward(inputs).toTensor().scalar_type());
}

TEST_F(Freeze, PreservesMethods) {
  Model model = pre_activation();
  model.define("def twice(self, x):\n  return self.forward(x) * 2\n");
  EXPECT_TRUE(bnfold::freeze(model.module, std::vector<std::string>{"twice"}).module.find_method("twice"));
  EXPECT_FALSE(bnfold::freeze(model.module).module.find_method("twice"));
}

TEST_F(Freeze, ThrowsWhatStockFreezeThrows) {
  jit::Module module = pre_activation().module;
  module.register_attribute("training", c10::BoolType::get(), true);
  EXPECT_THROW(bnfold::freeze(module), c10::Error);
  EXPECT_THROW(bnfold::freeze(pre_activation().module, std::vector<std::string>{"missing"}), c10::Error);
}

TEST_F(Freeze, FoldsWhatIsFrozen) {
  const jit::Module frozen = jit::freeze(pre_activation().module);
  const FoldResult result = fold(frozen);
  EXPECT_EQ(result.report.folded.size(), 1U);
  expect_same_output(frozen, result.module, {x});
}

TEST_F(Freeze, RunsTheNormWhileNoPassIsRegistered) {
  EXPECT_EQ(norms_that_run(jit::freeze(pre_activation().module)), 1);
}

TEST_F(Freeze, FoldsAsItRunsWhileThePassIsRegistered) {
  const jit::Module module = pre_activation().module;
  const jit::Module frozen = jit::freeze(module);
  register_pass();
  ASSERT_EQ(norms_that_run(frozen), 0);
  expect_same_output(module, frozen, {x});
}

TEST_F(Freeze, LeavesAFactorThatIsWrittenInPlaceAsItRuns) {
  Model model;
  model.layer("conv", {5, 4, 1, 1}, 5).parameter("scale", random_scale(5));
  model.forward("factor = self.scale * 2\nfactor.add_(1.0)\nreturn " + conv("conv", "x") + " * factor.view([5, 1, 1])");
  const jit::Module frozen = jit::freeze(model.module);
  register_pass();
  expect_same_output(model.module, frozen, {x});
}

TEST_F(Freeze, LeavesAModuleThatIsNotFrozenAlone) {
  register_pass();
  EXPECT_EQ(norms_that_run(pre_activation().module), 1);
}

TEST_F(Freeze, RegistersOnce) {
  EXPECT_FALSE(pass_is_registered());
  register_pass();
  register_pass();
  EXPECT_TRUE(pass_is_registered());
  unregister_pass();
  unregister_pass();
  EXPECT_FALSE(pass_is_registered());
  EXPECT_EQ(norms_that_run(jit::freeze(pre_activation().module)), 1);
}

}  // namespace
}  // namespace bnfold::test
