#include "graph/tuple_results.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/runtime/interpreter.h>

#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// The difference of a pair of tensors that is made in these statements, by a condition `swap` among others.
class TupleResults : public ::testing::Test {
 protected:
  void make(const std::string& statements) {
    model_.define("def forward(self, x, y, swap: bool, given: Tuple[Tensor, Tensor]):\n" + statements +
                  "  first, second = pair\n  return first - second\n");
    graph_ = jit::toGraphFunction(model_.module.get_method("forward").function()).graph()->copy();
  }

  // Splits, and expects that conditions gave these many tuples before and give these many now, and that all runs are as they were.
  void expect_tuples(int64_t before, int64_t after) {
    EXPECT_EQ(tuples(graph_->block()), before);
    const std::vector<at::Tensor> expected = runs();
    split_tuple_results(*graph_);
    graph_->lint();
    EXPECT_EQ(tuples(graph_->block()), after);
    const std::vector<at::Tensor> found = runs();
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(expected[i].equal(found[i])) << i;
  }

 private:
  static int64_t tuples(const jit::Block* block) {
    int64_t count = 0;
    for (const jit::Node* node : block->nodes()) {
      for (const jit::Block* inner : node->blocks()) count += tuples(inner);
      if (node->kind() != jit::prim::If) continue;
      for (const jit::Value* output : node->outputs()) count += output->type()->kind() == c10::TypeKind::TupleType;
    }
    return count;
  }

  std::vector<at::Tensor> runs() const {
    std::vector<at::Tensor> results;
    for (const bool swap : {false, true}) {
      jit::Stack stack{model_.module._ivalue(), x_, y_, swap, c10::ivalue::Tuple::create({y_, y_})};
      jit::InterpreterState(jit::Code(graph_->copy(), "tuple_results")).run(stack);
      results.push_back(stack.at(0).toTensor());
    }
    return results;
  }

  Model model_;
  std::shared_ptr<jit::Graph> graph_;
  const at::Tensor x_ = at::randn({2, 3});
  const at::Tensor y_ = at::randn({2, 3});
};

TEST_F(TupleResults, AreSplitWhereEachBranchMakesOne) {
  make("  if swap:\n    pair = (y, x)\n  else:\n    pair = (x, y)\n");
  expect_tuples(1, 0);
}

TEST_F(TupleResults, StayWhereABranchHasOneAsItCame) {
  make("  if swap:\n    pair = (y, x)\n  else:\n    pair = given\n");
  expect_tuples(1, 1);
}

TEST_F(TupleResults, AreSplitFromWithinOutwards) {
  make("  if swap:\n    if x.size(0) == 2:\n      pair = (y, x)\n    else:\n      pair = (y, y)\n  else:\n    pair = (x, y)\n");
  expect_tuples(2, 0);
}

TEST_F(TupleResults, AreSplitWhereABranchReturnsBeforeIt) {
  make("  if swap:\n    return x\n  pair = (x, y)\n  if x.size(0) == 2:\n    pair = (y, x)\n");
  expect_tuples(1, 0);
}

}  // namespace
}  // namespace bnfold::test
