// Curved activations, which pass nothing but a mask.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

void set_affine(const Model& model, const at::Tensor& scale, const at::Tensor& shift) {
  const auto norm = model.module.attr("norm").toModule();
  const at::Tensor deviation = (norm.attr("running_var").toTensor() + 1e-5).sqrt();
  norm.attr("running_mean").toTensor().zero_();
  norm.attr("running_var").toTensor().fill_(1 - 1e-5);
  norm.attr("weight").toTensor().copy_(scale);
  norm.attr("bias").toTensor().copy_(shift);
}

const at::Tensor mask = at::tensor({1.0, 0.0, 1.0, 0.0}, at::kDouble);
const at::Tensor none = at::zeros({4}, at::kDouble);

class NonlinearRule : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { at::manual_seed(5); }

  std::string call(const std::string& value) const { return fmt::format(fmt::runtime(GetParam()), value); }

  Model behind_conv(const at::Tensor& scale, const at::Tensor& shift) const {
    Model model;
    model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
    set_affine(model, scale, shift);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), call("y"), batch_norm("norm", "y")));
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

using ZeroPreserving = NonlinearRule;

TEST_P(ZeroPreserving, PassesAMaskBackward) {
  expect_folded(behind_conv(mask, none).module, {x}, "norm", "conv");
}

TEST_P(ZeroPreserving, PassesAMaskForward) {
  Model model;
  model.layer("conv", {5, 4, 3, 3}, 5).norm("norm", 4);
  set_affine(model, mask, none);
  model.forward(fmt::format("y = {}\nreturn {}", call(batch_norm("norm", "x")), conv("conv", "y")));
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_P(ZeroPreserving, DeclinesAScale) {
  expect_kept(behind_conv(mask + mask, none).module, {x}, "norm", Reason::operator_not_affine, "is curved");
}

TEST_P(ZeroPreserving, DeclinesAShift) {
  expect_kept(behind_conv(mask, none + 0.5).module, {x}, "norm", Reason::operator_not_affine, "is curved");
}

TEST_P(ZeroPreserving, TakesZerosWhereTheRestGoesForward) {
  Model model;
  model.layer("first", {4, 4, 3, 3}, 4).layer("second", {4, 4, 3, 3}, 4).layer("head", {3, 4, 1, 1}, 3).norm("norm", 4);
  set_affine(model, at::tensor({-0.7, 0.0, 1.3, 0.0}, at::kDouble), at::randn({4}, at::kDouble));
  model.forward(fmt::format("u = {}\ny = {}\nreturn {}", conv("first", "x"), call(conv("second", "x")),
                            conv("head", batch_norm("norm", "y") + " + u")));
  expect_folded(model.module, {x}, "norm", "second, first, head");
}

INSTANTIATE_TEST_SUITE_P(Activations, ZeroPreserving,
                         ::testing::Values("torch.gelu({})", "torch.gelu({}, approximate=\"tanh\")", "torch.silu({})",
                                           "torch.silu_({})", "torch.hardswish({})", "torch.mish({})", "torch.tanh({})",
                                           "torch.tanh_({})", "torch.elu({})", "torch.selu({})", "torch.celu_({})"));

using Opaque = NonlinearRule;

TEST_P(Opaque, DeclinesAMask) {
  expect_kept(behind_conv(mask, none).module, {x}, "norm", Reason::operator_not_affine, "is curved");
}

INSTANTIATE_TEST_SUITE_P(Activations, Opaque,
                         ::testing::Values("torch.sigmoid({})", "torch.hardsigmoid({})", "torch.softplus({})",
                                           "torch.softmax({}, 1)", "torch.exp({})"));

}  // namespace
}  // namespace bnfold::test
