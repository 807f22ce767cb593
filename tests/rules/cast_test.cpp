#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class CastRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // y is conv of x, the norm reads `cast` of it
  static Model behind_conv(const std::string& cast) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\nreturn {}", conv("conv", "x"), batch_norm("norm", cast)));
  }

  // y is the norm of x, conv reads `cast` of it
  static Model before_conv(const std::string& cast) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = {}\nreturn {}", batch_norm("norm", "x"), conv("conv", cast)));
  }

  static Model in(Model model, const char* name, at::ScalarType dtype) {
    model.module.attr(name).toModule().to(dtype);
    return model;
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(CastRule, GoesBackBehindOneToTheSameDtype) {
  for (const char* cast : {"y.to(x.dtype)", "y.to(y.dtype)", "y.to(7)", "y.double()", "y.type_as(x)", "y.to(x)", "y.to(x.device)",
                           "y.to(x.device, 7)"}) {
    expect_folded(behind_conv(cast).module, {x}, "norm", "conv");
  }
}

TEST_F(CastRule, DeclinesToGoBackBehindOneToAnotherDtype) {
  const at::Tensor narrow = x.to(at::kFloat);
  expect_kept(in(behind_conv("y.double()"), "conv", at::kFloat).module, {narrow}, "norm", Reason::dtypes_differ,
              "keeps the dtype");
  expect_kept(in(behind_conv("y.to(self.norm.weight)"), "conv", at::kFloat).module, {narrow}, "norm", Reason::dtypes_differ,
              "keeps the dtype");
  expect_kept(in(behind_conv("y.float()"), "norm", at::kFloat).module, {}, "norm", Reason::dtypes_differ, "keeps the dtype");
}

TEST_F(CastRule, DeclinesWhereTheDtypeIsComputed) {
  expect_kept(behind_conv("y.to(x.std().dtype)").module, {x}, "norm", Reason::dtypes_differ, "keeps the dtype");
}

TEST_F(CastRule, GoesOnThroughOneToTheSameDtype) {
  for (const char* cast : {"y.to(x.dtype)", "y.type_as(x)", "y.relu().to(x.dtype)"}) {
    expect_folded(before_conv(cast).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(CastRule, DeclinesToGoOnThroughOneToAnotherDtype) {
  for (const char* cast : {"y.double()", "y.relu().to(7)"}) {
    expect_stopped(before_conv(cast).module, {x}, "norm", "forward", Reason::dtypes_differ, "keeps the dtype", with_rank(4));
  }
  expect_stopped(in(before_conv("y.float()"), "conv", at::kFloat).module, {}, "norm", "forward", Reason::dtypes_differ,
                 "keeps the dtype", with_rank(4));
}

TEST_F(CastRule, TakesItsOwnValueForTheDtypeOnce) {
  for (const char* cast : {"y.type_as(y)", "y.to(y)"}) {
    expect_folded(before_conv(cast).module, {x}, "norm", "conv");
    expect_folded(behind_conv(cast).module, {x}, "norm", "conv");
  }
  for (const char* view : {"y.view_as(y)", "y.reshape_as(y)", "y.expand_as(y)"}) {
    expect_unharmed(before_conv(view).module, {x});
    expect_unharmed(behind_conv(view).module, {x});
  }
}

TEST_F(CastRule, IsNoReaderOfTheValueWhoseDtypeItTakes) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward(fmt::format("y = {}\nreturn {}, x.to(y), x.type_as(y)", conv("conv", "x"), batch_norm("norm", "y")));
  expect_folded(model.module, {x}, "norm", "conv");
}

}  // namespace
}  // namespace bnfold::test
