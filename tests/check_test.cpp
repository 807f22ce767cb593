#include "bnfold/check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "bnfold/bnfold.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

jit::Module returning(const std::string& expression) {
  Model model;
  return model.forward("return " + expression).module;
}

CheckResult compared(const std::string& a, const std::string& b, const at::Tensor& x) {
  return check(returning(a), returning(b), {{x}});
}

const at::Tensor& ones() {
  static const at::Tensor tensor = at::ones({2, 3});
  return tensor;
}

TEST(Check, AcceptsRounding) {
  const CheckResult result = compared("x * 3", "x * 3.0000002", ones());
  EXPECT_TRUE(result.passed);
  EXPECT_GT(result.largest_error, 0);
  EXPECT_EQ(result.worst_output, "output");
  EXPECT_EQ(result.inputs, 1);
}

TEST(Check, RefusesMore) {
  const CheckResult result = compared("x * 3", "x * 3.01", ones());
  EXPECT_FALSE(result.passed);
  EXPECT_NEAR(result.largest_error, 0.01 / 3, 1e-6);
}

TEST(Check, AcceptsADifferenceThatIsTheRoundingOfTheOriginal) {
  for (const char* const rounded : {"(x + 4096) - 4096", "(x + 65536) - 65536"}) {
    const CheckResult result = compared(rounded, "x", at::rand({100}) + 0.5);
    EXPECT_TRUE(result.passed) << rounded;
    EXPECT_GT(result.largest_error, tolerance(at::kFloat));
    EXPECT_LE(result.largest_error, result.tolerance);
  }
}

TEST(Check, RefusesMoreThanTheRoundingOfTheOriginal) {
  EXPECT_FALSE(compared("(x + 4096) - 4096", "x * 1.002", at::rand({100}) + 0.5).passed);
  EXPECT_FALSE(compared("(x + 1e7) - 1e7", "x", at::rand({100}) + 0.5).passed);
}

// In double the product would be one of two dtypes.
jit::Module with_narrow_weight(const at::Tensor& weight) {
  Model model;
  model.parameter("weight", weight.to(at::kBFloat16));
  return model.forward("return torch.mm(x.to(15), self.weight).to(6)").module;
}

TEST(Check, AcceptsTheRoundingOfAModuleThatCastsItself) {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({16, 8});
  const auto off_by = [&](double part) {
    const at::Tensor other = weight * (1 + part * (2 * at::rand_like(weight) - 1));
    return check(with_narrow_weight(weight), with_narrow_weight(other), {{at::randn({4, 16})}});
  };
  const CheckResult result = off_by(0.004);
  EXPECT_TRUE(result.passed);
  EXPECT_GT(result.largest_error, tolerance(at::kFloat));
  EXPECT_FALSE(off_by(0.1).passed);
}

TEST(Check, RefusesOtherRandomNumbers) {
  for (const std::string noise : {"0.1", "0.005"}) {
    EXPECT_FALSE(
        compared("x + " + noise + " * torch.rand_like(x)", "x + " + noise + " * (1.0 - torch.rand_like(x))", ones()).passed)
        << noise;
  }
}

TEST(Check, IsRelativeToTheLargestOutputNotToEach) {
  EXPECT_TRUE(compared("x * 1000", "x * 1000 + 1e-4", ones()).passed);
}

TEST(Check, LooksIntoTuplesListsAndDicts) {
  EXPECT_EQ(compared("(x, x)", "(x, x + 1)", ones()).worst_output, "output[1]");
  EXPECT_EQ(compared("[x, x]", "[x, x + 1]", ones()).worst_output, "output[1]");
  EXPECT_EQ(compared("{'a': x, 'out': x}", "{'a': x, 'out': x + 1}", ones()).worst_output, "output['out']");
  EXPECT_TRUE(compared("{'a': (x, [x])}", "{'a': (x, [x])}", ones()).passed);
}

TEST(Check, RefusesAnotherStructureShapeOrDtype) {
  EXPECT_FALSE(compared("(x, x)", "(x, x, x)", ones()).passed);
  EXPECT_FALSE(compared("x", "x[0]", ones()).passed);
  EXPECT_FALSE(compared("x", "x.double()", ones()).passed);
}

TEST(Check, TakesNanAndInfinityAsEqualToThemselves) {
  EXPECT_TRUE(compared("x / 0", "x / 0", ones()).passed);
  EXPECT_TRUE(compared("x * float('nan')", "x * float('nan')", ones()).passed);
  EXPECT_FALSE(compared("x / 0", "-x / 0", ones()).passed);
  EXPECT_FALSE(compared("x", "x * float('nan')", ones()).passed);
}

TEST(Check, ComparesIntegersExactly) {
  EXPECT_TRUE(compared("x.long()", "x.long()", ones()).passed);
  EXPECT_FALSE(compared("x.long()", "x.long() + 1", ones()).passed);
}

TEST(Check, GivesEachModuleItsOwnInput) {
  EXPECT_TRUE(compared("x.add_(1)", "x.add_(1)", ones()).passed);
  EXPECT_EQ(ones().max().item<float>(), 1);
}

TEST(Check, GivesRandomOperatorsTheSameNumbers) {
  EXPECT_TRUE(compared("torch.dropout(x, 0.5, True)", "torch.dropout(x, 0.5, True)", at::ones({100})).passed);
}

TEST(Check, SaysInOneSentenceThatTheInputDoesNotFit) {
  try {
    compared("x.view(7)", "x", ones());
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "the module can't run on the given input: shape '[7]' is invalid for input of size 6");
  }
}

TEST(Check, SaysThatOnlyTheFoldedModuleCanNotRun) {
  try {
    compared("x", "x.view(7)", ones());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).rfind("the folded module can't run on an input that the original takes: ", 0), 0U);
  }
}

TEST(Check, LeavesTheModulesAndTheGeneratorsAsTheyWere) {
  Model model;
  model.buffer("count", at::zeros({})).forward("self.count.add_(1)\nreturn torch.rand_like(x) + self.count");
  at::manual_seed(3);
  const at::Tensor expected = at::rand({3});
  at::manual_seed(3);
  EXPECT_TRUE(check(model.module, model.module.deepcopy(), {{ones()}, {ones()}}).passed);
  EXPECT_TRUE(at::equal(at::rand({3}), expected));
  EXPECT_EQ(model.module.attr("count").toTensor().item<double>(), 0);
}

TEST(Check, RefusesToCompareOnNothing) {
  EXPECT_THROW(check(returning("x"), returning("x"), {}), Error);
}

TEST(Check, TolerancesGrowWithTheUnitRoundoff) {
  EXPECT_LT(tolerance(at::kDouble), tolerance(at::kFloat));
  EXPECT_LT(tolerance(at::kFloat), tolerance(at::kHalf));
  EXPECT_LT(tolerance(at::kHalf), tolerance(at::kBFloat16));
}

}  // namespace
}  // namespace bnfold::test
