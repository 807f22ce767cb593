#include "graph/parameter_store.h"

#include <gtest/gtest.h>

#include "graph/graph_walk.h"
#include "module/flatten.h"
#include "support/model.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

// The first value that the graph of forward multiplies x with.
jit::Value* factor(const Program& program) {
  jit::Value* found = nullptr;
  for_each_node(program.methods.at(0).graph->block(), [&](jit::Node* node) {
    if (node->kind() == jit::aten::mul && found == nullptr) found = node->input(1);
  });
  return found;
}

class Store : public ::testing::Test {
 protected:
  Store() { model.parameter("block.weight", weight); }

  const at::Tensor weight = at::full({2}, 3, at::kDouble);
  Model model;
};

TEST_F(Store, ReadsParametersUnderTheirPath) {
  const Program program = flatten(model.forward("return x * self.block.weight").module, {});
  const ParameterStore store(program);
  const jit::Value* value = factor(program);
  ASSERT_TRUE(store.read(value).has_value());
  EXPECT_TRUE(store.read(value)->is_same(weight));
  EXPECT_EQ(store.path(value), "block.weight");
  EXPECT_EQ(store.layer(value), "block");
}

TEST_F(Store, ReadsNothingThatIsComputed) {
  const Program program = flatten(model.forward("return x * torch.relu(self.block.weight)").module, {});
  EXPECT_FALSE(ParameterStore(program).read(factor(program)).has_value());
}

TEST_F(Store, ReadsNothingThatIsWrittenInPlace) {
  const Program program = flatten(model.forward("self.block.weight.add_(1)\nreturn x * self.block.weight").module, {});
  EXPECT_FALSE(ParameterStore(program).read(factor(program)).has_value());
}

TEST_F(Store, ReadsNothingThatIsAssigned) {
  const Program program = flatten(model.forward("self.block.weight = x\nreturn x * self.block.weight").module, {});
  EXPECT_FALSE(ParameterStore(program).read(factor(program)).has_value());
}

TEST_F(Store, ReadsNothingThatIsPreservedForTheUser) {
  model.parameter("gain", weight).forward("return x * self.gain");
  Options options;
  options.preserved_attributes = {"gain"};
  const Program program = flatten(model.module, options);
  EXPECT_FALSE(ParameterStore(program).read(factor(program)).has_value());
}

TEST_F(Store, ReadsNothingThatAnotherMethodWrites) {
  model.forward("return x * self.block.weight").define("def reset(self, x):\n  self.block.weight.zero_()\n  return x\n");
  const Program program = flatten(model.module, {});
  for (const Program::Method& method : program.methods) {
    if (method.name != "forward") continue;
    EXPECT_FALSE(ParameterStore(program).read(method.graph->outputs().at(0)->node()->input(1)).has_value());
  }
}

TEST_F(Store, ReadsWhatWasAdded) {
  const Program program = flatten(model.forward("return x * self.block.weight").module, {});
  ParameterStore store(program);
  const jit::Value* value = store.add(factor(program), "weight", weight * 2);
  ASSERT_TRUE(store.read(value).has_value());
  EXPECT_TRUE(at::equal(*store.read(value), weight * 2));
  EXPECT_FALSE(store.read(value)->requires_grad());
  EXPECT_EQ(store.path(value), "block.weight");
}

}  // namespace
}  // namespace bnfold::test
