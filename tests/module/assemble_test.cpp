#include "module/assemble.h"

#include <gtest/gtest.h>

#include "module/flatten.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

jit::Module rebuilt(const jit::Module& module, const Options& options = {}) {
  const Program program = flatten(module, options);
  const ParameterStore store(program);
  return assemble(program, store);
}

Model scale_and_count() {
  Model model;
  model.parameter("block.weight", at::full({2}, 3, at::kDouble)).parameter("unused.weight", at::ones({2}, at::kDouble));
  model.buffer("block.count", at::zeros({}, at::kDouble));
  return model.forward("self.block.count.add_(1)\nreturn x * self.block.weight + self.block.count");
}

TEST(Assemble, KeepsWhatIsReadUnderItsName) {
  EXPECT_EQ(state_names(rebuilt(scale_and_count().module)), (std::vector<std::string>{"block.weight", "block.count"}));
}

TEST(Assemble, KeepsPreservedValues) {
  Model model = scale_and_count();
  model.module.register_attribute("version", c10::IntType::get(), 7);
  Options options;
  options.preserved_attributes = {"version"};
  EXPECT_EQ(rebuilt(model.module, options).attr("version").toInt(), 7);
}

TEST(Assemble, SharesParametersButNotTheirTensorObjects) {
  const Model model = scale_and_count();
  jit::Module result = rebuilt(model.module);
  const at::Tensor before = model.module.attr("block").toModule().attr("weight").toTensor();
  const at::Tensor after = result.attr("block").toModule().attr("weight").toTensor();
  EXPECT_EQ(before.data_ptr(), after.data_ptr());
  result.to(at::kHalf);
  EXPECT_EQ(before.scalar_type(), at::kDouble);
}

TEST(Assemble, CopiesBuffersSoThatRunningTheResultLeavesTheOriginal) {
  const Model model = scale_and_count();
  jit::Module result = rebuilt(model.module);
  result.forward({at::ones({2}, at::kDouble)});
  EXPECT_EQ(result.attr("block").toModule().attr("count").toTensor().item<double>(), 1);
  EXPECT_EQ(model.module.attr("block").toModule().attr("count").toTensor().item<double>(), 0);
}

TEST(Assemble, KeepsRequiresGrad) {
  const Model model = scale_and_count();
  model.module.attr("block").toModule().attr("weight").toTensor().set_requires_grad(true);
  EXPECT_TRUE(rebuilt(model.module).attr("block").toModule().attr("weight").toTensor().requires_grad());
}

TEST(Assemble, KeepsTiedParametersTied) {
  Model model;
  const at::Tensor weight = at::ones({2}, at::kDouble);
  model.parameter("a.weight", weight).parameter("b.weight", weight).forward("return x * self.a.weight + self.b.weight");
  const jit::Module result = rebuilt(model.module);
  EXPECT_TRUE(
      result.attr("a").toModule().attr("weight").toTensor().is_same(result.attr("b").toModule().attr("weight").toTensor()));
}

// Counts in a, multiplies by b, which lies in the same memory.
void expect_counted(const at::Tensor& a, const at::Tensor& b) {
  Model model;
  model.buffer("a.count", a).buffer("b.count", b).forward("self.a.count.add_(1)\nreturn x * self.b.count");
  jit::Module result = rebuilt(model.module);
  for (const double count : {2, 3}) {
    EXPECT_EQ(result.forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), count);
  }
  EXPECT_EQ(a[0].item<double>(), 1);
}

TEST(Assemble, KeepsTiedBuffersTied) {
  const at::Tensor count = at::ones({2}, at::kDouble);
  expect_counted(count, count);
}

TEST(Assemble, KeepsTheOverlapOfBuffers) {
  const at::Tensor count = at::ones({2}, at::kDouble);
  expect_counted(count, count.narrow(0, 0, 1));
  expect_counted(count, count.detach());
}

TEST(Assemble, KeepsBuffersThatAreOtherViewsOfOneMemory) {
  const at::Tensor values = at::arange(1, 5, at::kDouble);
  Model model;
  model.buffer("values", values).buffer("negative", values._neg_view()).buffer("bits", values.view(at::kLong));
  model.forward("return x * self.values, x * self.negative, self.bits");
  jit::Module result = rebuilt(model.module);
  const auto outputs = result.forward({at::ones({4}, at::kDouble)}).toTuple();
  EXPECT_TRUE(outputs->elements()[0].toTensor().equal(values));
  EXPECT_TRUE(outputs->elements()[1].toTensor().equal(-values));
  EXPECT_TRUE(outputs->elements()[2].toTensor().equal(values.view(at::kLong)));
}

jit::Module child(const char* name, const at::Tensor& weight) {
  jit::Module module(name);
  module.register_parameter("weight", weight, /*is_buffer=*/false);
  return module;
}

TEST(Assemble, BuildsASubmoduleWithTwoNamesOnce) {
  Model model;
  const jit::Module shared = child("Shared", at::full({2}, 3, at::kDouble));
  model.module.register_module("a", shared);
  model.module.register_module("b", shared);
  model.module.register_module("c", child("Other", at::full({2}, 3, at::kDouble)));
  model.forward("return x * self.a.weight + self.b.weight * self.c.weight");
  const jit::Module result = rebuilt(model.module);
  EXPECT_EQ(result.attr("a").toModule()._ivalue(), result.attr("b").toModule()._ivalue());
  EXPECT_NE(result.attr("a").toModule()._ivalue(), result.attr("c").toModule()._ivalue());
}

TEST(Assemble, KeepsUnderBothNamesWhatOneOfThemReads) {
  Model model;
  jit::Module shared = child("Shared", at::full({2}, 3, at::kDouble));
  shared.register_parameter("bias", at::ones({2}, at::kDouble), /*is_buffer=*/false);
  model.module.register_module("a", shared);
  model.module.register_module("b", shared);
  model.forward("return x * self.a.weight + self.b.bias");
  jit::Module result = rebuilt(model.module);
  EXPECT_EQ(result.attr("a").toModule()._ivalue(), result.attr("b").toModule()._ivalue());
  EXPECT_EQ(result.forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), 4);
}

TEST(Assemble, KeepsACounterUnderTwoNamesOne) {
  for (const bool shared : {true, false}) {
    Model model;
    jit::Module counter("__torch__.Counter", model.module._ivalue()->compilation_unit(), true);
    counter.register_attribute("count", c10::IntType::get(), 0);
    counter.define("def forward(self, x):\n  self.count = self.count + 1\n  return x * self.count\n");
    model.module.register_module("a", counter);
    model.module.register_module("b", shared ? counter : counter.copy());
    model.forward("return self.a.forward(x) + self.b.forward(x)");
    jit::Module result = rebuilt(model.module);
    EXPECT_EQ(result.forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), shared ? 3 : 2);
  }
}

TEST(Assemble, CopiesAParameterThatIsWritten) {
  const at::Tensor weight = at::ones({2}, at::kDouble);
  Model model;
  model.parameter("weight", weight).buffer("first", weight.narrow(0, 0, 1)).forward("self.first.add_(1)\nreturn x * self.weight");
  jit::Module result = rebuilt(model.module);
  for (const double value : {2, 3}) {
    EXPECT_EQ(result.forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), value);
  }
  EXPECT_EQ(weight[0].item<double>(), 1);
}

TEST(Assemble, KeepsDefaultArguments) {
  Model model;
  model.parameter("weight", at::full({2}, 3, at::kDouble));
  model.define("def forward(self, x, factor: float = 2.0):\n  return x * self.weight * factor\n");
  jit::Module result = rebuilt(model.module);
  EXPECT_EQ(result.forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), 6);
}

TEST(Assemble, KeepsAssignedAttributes) {
  Model model;
  model.module.register_attribute("last", c10::FloatType::get(), 0.0);
  model.forward("self.last = float(x.sum())\nreturn x * 2");
  jit::Module result = rebuilt(model.module);
  result.forward({at::ones({2}, at::kDouble)});
  EXPECT_EQ(result.attr("last").toDouble(), 2);
  EXPECT_EQ(model.module.attr("last").toDouble(), 0);
}

}  // namespace
}  // namespace bnfold::test
