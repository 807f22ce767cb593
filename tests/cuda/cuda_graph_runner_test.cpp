// A module that is captured as a CUDA graph. What needs a GPU is skipped where there is none.
#include "bnfold/cuda_graph_runner.h"

#include <gtest/gtest.h>

#include "bnfold/optimize.h"
#include "support/close.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU";
    at::manual_seed(5);
    x = at::randn({2, 3, 9, 8}, at::kCUDA);
  }

  static Model on_gpu(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4).buffer("count", at::zeros({1})).forward(statements);
    model.module.to(at::kFloat);
    model.module.to(at::kCUDA);
    return model;
  }

  static inline const std::string kResult = "torch.relu(" + batch_norm("norm", conv("conv", "x", 1)) + ")";
  at::Tensor x;
};

TEST_F(OnGpu, ComputesWhatTheModuleComputes) {
  Model model = on_gpu("return " + kResult);
  CudaGraphRunner run(optimize_for_inference(model.module, {x}).module, {x});
  const at::Tensor first = run({x}).toTensor();
  for (const at::Tensor& other : {at::randn_like(x), at::randn(x.sizes(), at::kCPU)}) {
    const at::Tensor expected = model.module.forward({other.to(at::kCUDA)}).toTensor();
    EXPECT_LE(relative_error(expected, run({other}).toTensor()), 1e-4);
  }
  EXPECT_LE(relative_error(model.module.forward({x}).toTensor(), first), 1e-4);
}

TEST_F(OnGpu, PutsBuffersBackAndCountsFromThere) {
  Model model = on_gpu("self.count.add_(1)\nreturn " + kResult + " + self.count");
  CudaGraphRunner run(model.module, {x});
  EXPECT_EQ(model.module.attr("count").toTensor().item<double>(), 0);
  run({x});
  EXPECT_EQ(model.module.attr("count").toTensor().item<double>(), 1);
}

TEST_F(OnGpu, RefusesWhatItCantCaptureOrRepeat) {
  EXPECT_THROW(CudaGraphRunner(on_gpu("if bool(x.sum() > 0):\n  x = x * 2\nreturn " + kResult).module, {x}), Error);
  EXPECT_THROW(CudaGraphRunner(on_gpu("self.count = self.count + 1\nreturn " + kResult).module, {x}), Error);
  CudaGraphRunner run(on_gpu("return " + kResult).module, {x});
  EXPECT_THROW(run({x.slice(0, 0, 1)}), InputError);
  EXPECT_THROW(run({x.to(at::kHalf)}), InputError);
  EXPECT_THROW(run({x, x}), InputError);
}

TEST(CudaGraphRunner, RefusesInputsThatAreOnNoGpu) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).forward("return " + conv("conv", "x"));
  EXPECT_THROW(CudaGraphRunner(model.module, {}), InputError);
  EXPECT_THROW(CudaGraphRunner(model.module, {at::randn({2, 3, 9, 8})}), InputError);
}

}  // namespace
}  // namespace bnfold::test
