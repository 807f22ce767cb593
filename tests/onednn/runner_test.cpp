// Networks for inputs of all kinds, in threads, and in files.
#include "onednn/onednn.h"

#include <thread>

namespace bnfold::test {
namespace {

class Runner : public OneDnn {
 protected:
  static Model block() { return model("y = torch.relu(" + conv("conv", "x", 1) + ")\nreturn " + conv("back", "y") + " + x"); }
};

TEST_F(Runner, HasANetworkForEachSizeAndOrder) {
  const Model tested = block();
  const at::Tensor x = at::randn({1, 8, 12, 10});
  const OptimizeResult result = optimized(tested, x);
  expect_networks(result.module, 0);
  expect_same(tested, result,
              {x, at::randn({1, 8, 12, 10}), x.expand({4, 8, 12, 10}), at::randn({1, 8, 10, 12}).transpose(2, 3)});
  expect_networks(result.module, 2);  // one image, four images
  const at::Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
  const auto [expected, actual] = outputs_of(tested.module, result.module, last);
  expect_near(expected, actual);
  expect_networks(result.module, 3);
}

TEST_F(Runner, LeavesToLibTorchWhatHasNoNetwork) {
  const Model tested = block();
  const OptimizeResult result = optimized(tested);
  expect_same(tested, result, {at::randn({0, 8, 12, 10})});
  expect_networks(result.module, 0);
}

TEST_F(Runner, RefusesWhatTheModelRefuses) {
  Model tested = block();
  OptimizeResult result = optimized(tested);
  for (const at::Tensor& input : {at::randn({1, 7, 12, 10}), at::randn({8, 12}), at::randn({1, 8, 12, 10}, at::kDouble)}) {
    EXPECT_ANY_THROW(tested.module.forward({input}));
    EXPECT_ANY_THROW(result.module.forward({input}));
  }
}

TEST_F(Runner, TakesSizesWithoutEnd) {
  const Model tested = block();
  const OptimizeResult result = optimized(tested);
  std::vector<at::Tensor> inputs;
  for (int64_t side = 4; side < 30; ++side) inputs.push_back(at::randn({1, 8, side, side}));
  expect_same(tested, result, inputs);
  expect_networks(result.module, 16);
}

TEST_F(Runner, RunsInSeveralThreads) {
  const Model tested = block();
  torch::jit::Module module = optimized(tested).module;
  std::vector<at::Tensor> inputs, outputs(6);
  for (size_t i = 0; i < outputs.size(); ++i) inputs.push_back(at::randn({1, 8, 12 + static_cast<int64_t>(i % 2), 10}));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < outputs.size(); ++i) {
    threads.emplace_back([&, i] {
      const at::NoGradGuard no_grad;
      for (int run = 0; run < 20; ++run) outputs[i] = module.forward({inputs[i]}).toTensor();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < outputs.size(); ++i) expect_near(outputs_of(tested.module, module, inputs[i]).first, outputs[i]);
}

TEST_F(Runner, LeavesItsInputsAndEarlierOutputs) {
  const Model tested = block();
  torch::jit::Module module = optimized(tested).module;
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({1, 8, 12, 10}), kept = x.clone();
  const at::Tensor first = module.forward({x}).toTensor(), copy = first.clone();
  module.forward({at::randn({1, 8, 12, 10})});
  EXPECT_TRUE(x.equal(kept));
  EXPECT_TRUE(first.equal(copy));
}

TEST_F(Runner, ComesWithACopyOfTheModule) {
  const Model tested = block();
  const torch::jit::Module module = optimized(tested).module;
  for (const torch::jit::Module& copy : {module.deepcopy(), module.copy()}) {
    const auto [expected, actual] = outputs_of(tested.module, copy, at::randn({2, 8, 12, 10}));
    expect_near(expected, actual);
  }
}

}  // namespace
}  // namespace bnfold::test
