// What a run on example inputs tells, through the call that takes them, and what it must leave as it was.
#include "module/observe.h"

#include <gtest/gtest.h>

#include "bnfold/check.h"
#include "module/trial_run.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// integral of x --> linear --> norm: no operator tells the rank.
Model behind_an_integral() {
  Model model;
  model.layer("linear", {5, 4}, 5).norm("norm", 5);
  return model.forward("return " + batch_norm("norm", "torch.linear(torch.trapz(x), self.linear.weight, self.linear.bias)"));
}

Options with_example(const at::Tensor& x) {
  Options options;
  options.example_inputs = {x};
  return options;
}

TEST(Example, TellsTheRanksOfWhatIsComputed) {
  const at::Tensor x = at::randn({3, 4, 2}, at::kDouble);
  expect_folded(behind_an_integral().module, {x}, "norm", "linear", with_example(x));
  const at::Tensor frames = at::randn({3, 5, 4, 2}, at::kDouble);
  expect_kept(behind_an_integral().module, {frames}, "norm", Reason::affine_varies_elsewhere, "", with_example(frames));
}

TEST(Example, IsRefusedWhereTheModuleCantRunOnIt) {
  EXPECT_THROW(fold(behind_an_integral().module, with_example(at::randn({3, 7, 2}, at::kDouble))), InputError);
}

TEST(Example, AndListedRanksAreNotGivenTogether) {
  Options options = with_example(at::randn({3, 4}, at::kDouble));
  options.input_ranks = {2};
  EXPECT_THROW(fold(behind_an_integral().module, options), Error);
}

// Counts its calls in a buffer, and draws random numbers.
Model counting() {
  Model model;
  model.buffer("calls", at::zeros({1}, at::kDouble)).layer("linear", {5, 4}, 5).norm("norm", 5);
  return model.forward("self.calls.add_(1.0)\nx.mul_(2.0)\ny = x + torch.rand_like(x) * 0.0\nreturn " +
                       batch_norm("norm", "torch.linear(y, self.linear.weight, self.linear.bias)"));
}

TEST(Example, IsRunWithoutATraceOfIt) {
  const Model model = counting();
  const at::Tensor x = at::randn({3, 4}, at::kDouble);
  const at::Tensor before = x.clone();
  at::manual_seed(3);
  const at::Tensor next = at::rand({4});
  at::manual_seed(3);
  fold(model.module, with_example(x));
  EXPECT_EQ(model.module.attr("calls").toTensor().item<double>(), 0);
  EXPECT_TRUE(x.equal(before));
  EXPECT_TRUE(at::rand({4}).equal(next));
}

TEST(CopyToRun, HasItsOwnBuffersAndSharesWeights) {
  const Model model = behind_an_integral();
  const jit::Module copy = copy_to_run(model.module);
  EXPECT_TRUE(copy.attr("linear").toModule().attr("weight").toTensor().is_alias_of(
      model.module.attr("linear").toModule().attr("weight").toTensor()));
  EXPECT_FALSE(copy.attr("norm").toModule().attr("running_mean").toTensor().is_alias_of(tensor_of(model, "running_mean")));
}

TEST(CopyToRun, SharesNoWeightsWithWhatWritesThem) {
  Model model;
  model.parameter("weight", at::ones({2}, at::kDouble)).forward("self.weight.detach().add_(1.0)\nreturn x * self.weight");
  const jit::Module copy = copy_to_run(model.module);
  EXPECT_FALSE(copy.attr("weight").toTensor().is_alias_of(model.module.attr("weight").toTensor()));
}

TEST(ArgumentsToRun, AreCopiesWithTheDefaultsThatWereLeftOut) {
  Model model;
  model.define("def forward(self, x, scale: float = 2.0, shift: float = 1.0):\n  return x * scale + shift\n");
  const at::Tensor x = at::randn({2}, at::kDouble);
  const auto arguments = arguments_to_run(model.module, {x, 3.0});
  ASSERT_EQ(arguments.size(), 3U);
  EXPECT_FALSE(arguments[0].toTensor().is_alias_of(x));
  EXPECT_EQ(arguments[1].toDouble(), 3.0);
  EXPECT_EQ(arguments[2].toDouble(), 1.0);
}

}  // namespace
}  // namespace bnfold::test
