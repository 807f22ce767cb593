#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class MultiplyRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // u = conv1(x), g = a gate of it as in squeeze and excitation, norm of the product
  static Model behind(const std::string& product, const std::string& behind = "") {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).layer("gate", {4, 3, 1, 1}, 4).norm("norm", 4);
    return model.forward(fmt::format("u = {}\ng = torch.sigmoid({})\ny = {}\nreturn {}{}", conv("conv1", "x"),
                                     conv("gate", "x.mean([2, 3], True)"), product, batch_norm("norm", "y"), behind));
  }

  // y is the norm of x, multiplied, then a convolution
  static Model before(const std::string& product, const std::string& behind = "") {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).layer("gate", {3, 3, 1, 1}, 3).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ng = torch.sigmoid({})\nz = {}\nreturn {}{}", batch_norm("norm", "x"),
                                     conv("gate", "x.mean([2, 3], True)"), product, conv("conv", "z"), behind));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(MultiplyRule, PassesTheScaleBehindAGate) {
  for (const char* product : {"u * g", "g * u", "u.mul_(g)"}) {
    Model model = behind(product);
    expect_folded(without_shift(model).module, {x}, "norm", "conv1");
  }
}

TEST_F(MultiplyRule, DeclinesAShiftBehindAGate) {
  expect_kept(behind("u * g").module, {x}, "norm", Reason::shift_not_passable, "gate");
}

TEST_F(MultiplyRule, DeclinesFactorsThatTakeNoScale) {
  Model model = behind("torch.sigmoid(u) * torch.exp(u)");
  expect_kept(without_shift(model).module, {x}, "norm", Reason::operator_not_affine, "sigmoid is curved");
}

TEST_F(MultiplyRule, DeclinesAFactorThatMayBeBroadcast) {
  Model model = behind("torch.sigmoid(u) * torch.avg_pool2d(x, [3, 3], [1, 1]).mean([1], True)");
  expect_kept(without_shift(model).module, {x}, "norm", Reason::sizes_unknown, "may be broadcast");
}

TEST_F(MultiplyRule, DoesNoHarmToTheSquareOfAValue) {
  Model model = behind("u * u");
  expect_unharmed(without_shift(model).module, {x});
}

TEST_F(MultiplyRule, DoesNoHarmToAFactorThatIsWrittenInto) {
  Model model = behind("torch.sigmoid(u.detach())\nw = y\ny = w.mul_(" + conv("conv1", "x") + ")", " + torch.tanh(w)");
  expect_unharmed(without_shift(model).module, {x});
}

TEST_F(MultiplyRule, PassesANumberBehind) {
  expect_folded(behind("u * 2.5").module, {x}, "norm", "conv1");
  expect_folded(behind("u.mul_(-3)").module, {x}, "norm", "conv1");
}

TEST_F(MultiplyRule, DeclinesTheNumberZeroBehind) {
  expect_kept(behind("u * 0.0").module, {x}, "norm", Reason::operand_not_constant, "other than 0");
}

TEST_F(MultiplyRule, PassesAQuotientAndANegationBehind) {
  for (const char* product : {"u / 2.5", "u.div_(-3)", "-u", "u.neg_()"}) {
    expect_folded(behind(product).module, {x}, "norm", "conv1", with_rank(4));
  }
}

TEST_F(MultiplyRule, DeclinesADivisionByZeroBehind) {
  expect_kept(behind("u / 0.0").module, {}, "norm", Reason::operand_not_constant, "other than 0", with_rank(4));
}

TEST_F(MultiplyRule, DeclinesARoundedQuotientBehind) {
  expect_kept(behind("torch.div(u, 2.5, rounding_mode='floor')").module, {x}, "norm", Reason::no_rule_for_operator, "aten::div");
}

TEST_F(MultiplyRule, PassesTheScaleBehindADivisor) {
  for (const char* product : {"u / (g + 2.0)", "u.div_(g + 2.0)"}) {
    Model model = behind(product);
    expect_folded(without_shift(model).module, {x}, "norm", "conv1");
  }
}

TEST_F(MultiplyRule, DeclinesADivisorBehind) {
  Model model = behind("torch.sigmoid(g) / torch.exp(u)");
  expect_kept(without_shift(model).module, {x}, "norm", Reason::operator_not_affine, "sigmoid is curved");
}

TEST_F(MultiplyRule, PassesTheScaleToTheFactorThatTakesItInTheEnd) {
  for (const char* product : {"torch.sigmoid(u).contiguous() * v", "v * torch.sigmoid(u).contiguous()",
                              "torch.tanh(u).contiguous() * (torch.exp(u).contiguous() * v)"}) {
    Model model;
    model.layer("u", {4, 3, 3, 3}, 4).layer("v", {4, 3, 3, 3}, 4).norm("norm", 4);
    model.forward(fmt::format("u = {}\nv = {}\nreturn {}", conv("u", "x"), conv("v", "x"), batch_norm("norm", product)));
    expect_folded(without_shift(model).module, {x}, "norm", "v");
  }
}

TEST_F(MultiplyRule, PassesTheScaleToTheFactorThatNobodyElseReads) {
  for (const char* product : {"u * v", "v * u", "(u * v) * g"}) {
    for (const char* also_read : {"u", "v"}) {
      Model model;
      model.layer("u", {4, 3, 3, 3}, 4).layer("v", {4, 3, 3, 3}, 4).layer("gate", {4, 3, 1, 1}, 4).norm("norm", 4);
      model.forward(fmt::format("u = {}\nv = {}\ng = torch.sigmoid({})\ny = {}\nreturn {}, {}", conv("u", "x"), conv("v", "x"),
                                conv("gate", "x.mean([2, 3], True)"), product, batch_norm("norm", "y"), also_read));
      expect_folded(without_shift(model).module, {x}, "norm", also_read == std::string("u") ? "v" : "u");
    }
  }
}

TEST_F(MultiplyRule, DeclinesFactorsThatOthersReadBoth) {
  Model model;
  model.layer("u", {4, 3, 3, 3}, 4).layer("v", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward(
      fmt::format("u = {}\nv = {}\ny = u * v\nreturn {}, u, v", conv("u", "x"), conv("v", "x"), batch_norm("norm", "y")));
  expect_kept(without_shift(model).module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(MultiplyRule, TakesNoTimeForProductsOfProducts) {
  std::string statements = fmt::format("u = torch.sigmoid({})\nv = torch.sigmoid(2 * u)\n", conv("conv", "x"));
  for (int i = 0; i < 60; ++i) statements += "w = u * v\nv = v * u\nu = w\n";
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
  model.forward(statements + "return " + batch_norm("norm", "u"));
  expect_kept(without_shift(model).module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(MultiplyRule, PassesTheScaleBeforeAGate) {
  for (const char* product : {"y * g", "g * y", "y.mul_(g)"}) {
    Model model = before(product);
    expect_folded(without_shift(model).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(MultiplyRule, PassesTheScaleTwiceIntoASquare) {
  Model model = before("y * y");
  expect_folded(without_shift(model).module, {x}, "norm", "conv");
}

TEST_F(MultiplyRule, DeclinesAShiftBeforeAGate) {
  expect_stopped(before("y * g").module, {x}, "norm", "forward", Reason::shift_not_passable, "gate");
}

TEST_F(MultiplyRule, DeclinesAFactorOfUnknownRank) {
  Model model = before("y * torch.hstack([x.sum(), x.mean()])[0]");
  expect_stopped(without_shift(model).module, {x}, "norm", "forward", Reason::rank_unknown, "number of dimensions");
}

TEST_F(MultiplyRule, PassesANumberBefore) {
  for (const char* product : {"y * 2.5", "y.mul_(-3)", "y * 0.0"}) expect_folded(before(product).module, {x}, "norm", "conv");
}

TEST_F(MultiplyRule, DeclinesANumberThatIsComputed) {
  expect_stopped(before("y * x.size(0)").module, {x}, "norm", "forward", Reason::operand_not_constant, "factor");
}

TEST_F(MultiplyRule, PassesAQuotientAndANegationBefore) {
  for (const char* product : {"y / 2.5", "y.div_(-3)", "-y", "y.neg_()"})
    expect_folded(before(product).module, {x}, "norm", "conv");
}

TEST_F(MultiplyRule, DeclinesADivisionByZeroBefore) {
  expect_stopped(before("y / 0.0").module, {}, "norm", "forward", Reason::operand_not_constant, "other than 0");
}

TEST_F(MultiplyRule, PassesTheScaleBeforeADivisor) {
  Model model = before("y / (g + 2.0)");
  expect_folded(without_shift(model).module, {x}, "norm", "conv", with_rank(4));
}

TEST_F(MultiplyRule, DeclinesToBeTheDivisor) {
  Model model = before("g / torch.clamp(y, 0.1, 1.0)");
  expect_stopped(without_shift(model).module, {x}, "norm", "forward", Reason::operator_not_affine, "divides");
}

// Divided by the buffer `by`, which is not a scale that would be folded itself.
class StaticFactor : public MultiplyRule {
 protected:
  static Model behind(const at::Tensor& by) {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).norm("norm", 4).buffer("by", by);
    return model.forward(fmt::format("y = {} / self.by\nreturn {}", conv("conv1", "x"), batch_norm("norm", "y")));
  }

  static Model before(const at::Tensor& by) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3).buffer("by", by);
    return model.forward(fmt::format("y = {} / self.by\nreturn {}", batch_norm("norm", "x"), conv("conv", "y")));
  }

  static at::Tensor along(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble).add(0.1); }
};

TEST_F(StaticFactor, PassesScaleAndShift) {
  for (const at::Tensor& by : {along({4, 1, 1}), along({}), along({1, 4, 1, 1})}) {
    expect_folded(behind(by).module, {x}, "norm", "conv1", with_rank(4));
  }
  for (const at::Tensor& by : {along({3, 1, 1}), along({}), along({1, 3, 1, 1})}) {
    expect_folded(before(by).module, {x}, "norm", "conv", with_rank(4));
  }
}

TEST_F(StaticFactor, DeclinesAShiftThatWouldVaryElsewhere) {
  expect_kept(behind(along({4, 4})).module, {x}, "norm", Reason::sizes_unknown, "broadcast", with_rank(4));
  expect_stopped(before(along({6, 1})).module, {x}, "norm", "forward", Reason::affine_varies_elsewhere, "", with_rank(4));
}

TEST_F(StaticFactor, PassesTheScaleWhereTheShiftWouldVaryElsewhere) {
  Model model = before(along({6, 1}));
  expect_folded(without_shift(model).module, {x}, "norm", "conv", with_rank(4));
}

TEST_F(StaticFactor, DeclinesAFactorOfMoreDimensions) {
  expect_stopped(before(along({2, 1, 3, 1, 1})).module, {}, "norm", "forward", Reason::rank_unknown, "more dimensions",
                 with_rank(4));
}

TEST_F(StaticFactor, DeclinesAFactorOf0) {
  const at::Tensor by = along({3, 1, 1});
  expect_folded(before(by).module, {x}, "norm", "conv", with_rank(4));
  by[1].zero_();
  expect_stopped(before(by).module, {}, "norm", "forward", Reason::operand_not_constant, "other than 0", with_rank(4));
}

TEST_F(StaticFactor, DeclinesOneWithoutData) {
  expect_stopped(before(at::ones({3, 1, 1}, at::TensorOptions(at::kDouble).device(at::kMeta))).module, {}, "norm", "forward",
                 Reason::shift_not_passable, "", with_rank(4));
}

TEST_F(MultiplyRule, DoesNoHarmToAGateThatIsWrittenInto) {
  Model model = before("torch.sigmoid(x)\nw = z\nz = w.mul_(y)", " + torch.tanh(w).sum()");
  expect_unharmed(without_shift(model).module, {x});
}

TEST_F(MultiplyRule, DoesNoHarmToWhatALoopMultipliesInPlaceBehindTheNorm) {
  Model model;
  model.layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
  model.forward(
      fmt::format("u = torch.tanh(x)\nout = torch.zeros_like(u)\nfor i in range(x.size(0)):\n  z = {}.mul_(2.0)\n"
                  "  out = out + {}\nreturn out",
                  batch_norm("norm", "u"), conv("conv", "z")));
  expect_unharmed(model.module, {x});
}

TEST_F(MultiplyRule, DoesNoHarmToALayersOutputThatALoopWouldMultiplyInPlace) {
  Model model;
  model.layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
  model.forward(
      fmt::format("u = {}\nout = torch.zeros_like(u)\nfor i in range(x.size(0)):\n  z = {}.mul_(2.0)\n"
                  "  out = out + torch.sigmoid(z)\nreturn out",
                  conv("conv", "x"), batch_norm("norm", "u")));
  expect_unharmed(model.module, {x});
}

}  // namespace
}  // namespace bnfold::test
