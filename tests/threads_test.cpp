// Several threads at once: folds of one module and of different ones, runs of a module while others fold it, and the pass of the executor
// while others run. Run it under the thread sanitizer, see the preset tsan.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <thread>
#include <vector>

#include "bnfold/bnfold.h"
#include "bnfold/check.h"
#include "bnfold/pass.h"
#include "support/close.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

constexpr int kThreads = 4;

class Threads : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(7);
    at::set_num_threads(1);
  }
  void TearDown() override { unregister_pass(); }

  // Norms that go backward, forward through a ReLU as a bound, and one that stays.
  static jit::Module make_module() {
    Model model;
    model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4).norm("bound", 4).layer("last", {5, 4, 1, 1}).norm("left", 5);
    model.forward("y = " + batch_norm("norm", conv("conv", "x")) + "\ny = torch.relu(" + batch_norm("bound", "torch.tanh(y)") +
                  ")\ny = torch.conv2d(y, self.last.weight)\nreturn " + batch_norm("left", "torch.sigmoid(y)"));
    return model.module;
  }

  static void at_once(const std::function<void(int)>& work) {
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(work, thread);
    for (std::thread& thread : threads) thread.join();
  }

  static at::Tensor run(jit::Module module, const at::Tensor& x) {
    const at::NoGradGuard no_grad;
    return module.forward({x}).toTensor();
  }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

TEST_F(Threads, FoldOneModule) {
  const jit::Module module = make_module();
  std::vector<FoldResult> results(kThreads, FoldResult{module, {}});
  at_once([&](int thread) {
    for (int time = 0; time < 5; ++time) results[thread] = fold(module);
  });
  for (const FoldResult& result : results) {
    EXPECT_EQ(result.report.to_json(), results[0].report.to_json());
    EXPECT_EQ(result.report.folded.size(), 2U);
    expect_same_output(module, result.module, {x});
  }
}

TEST_F(Threads, FoldDifferentModules) {
  std::vector<jit::Module> modules;
  for (int thread = 0; thread < kThreads; ++thread) modules.push_back(make_module());
  std::vector<jit::Module> folded = modules;
  at_once([&](int thread) {
    for (int time = 0; time < 5; ++time) folded[thread] = fold(modules[thread]).module;
  });
  for (int thread = 0; thread < kThreads; ++thread) expect_same_output(modules[thread], folded[thread], {x});
}

TEST_F(Threads, FreezeOneModule) {
  const jit::Module module = make_module();
  std::vector<jit::Module> frozen(kThreads, module);
  at_once([&](int thread) { frozen[thread] = bnfold::freeze(module).module; });
  for (const jit::Module& result : frozen) EXPECT_LE(relative_error(run(result, x), run(module, x)), 1e-12);
}

TEST_F(Threads, RunAModuleWhileOthersFoldIt) {
  const jit::Module module = make_module();
  const at::Tensor expected = run(module, x);
  std::vector<char> alike(kThreads, 1);
  at_once([&](int thread) {
    for (int time = 0; time < 10; ++time) {
      const jit::Module running = thread % 2 == 0 ? module : fold(module).module;
      alike[thread] &= static_cast<char>(relative_error(expected, run(running, x)) <= 1e-12);
    }
  });
  EXPECT_EQ(alike, std::vector<char>(kThreads, 1));
}

TEST_F(Threads, CheckAtOnce) {
  const jit::Module module = make_module();
  const jit::Module folded = fold(module).module;
  std::vector<char> passed(kThreads, 0);
  at_once([&](int thread) { passed[thread] = static_cast<char>(check(module, folded, {{x}}).passed); });
  EXPECT_EQ(passed, std::vector<char>(kThreads, 1));
}

// Each thread's first runs, in which the executor optimizes and the pass folds.
TEST_F(Threads, ThePassFoldsInSeveralThreads) {
  register_pass();
  std::vector<jit::Module> modules;
  for (int thread = 0; thread < kThreads; ++thread) modules.push_back(jit::freeze(make_module()));
  modules.back() = modules.front();  // two threads run the same module for the first time
  std::vector<at::Tensor> outputs(kThreads);
  at_once([&](int thread) {
    for (int time = 0; time < 3; ++time) outputs[thread] = run(modules[thread], x);
  });
  unregister_pass();
  for (int thread = 0; thread < kThreads; ++thread) {
    jit::Module again = modules[thread].deepcopy();
    EXPECT_LE(relative_error(outputs[thread], run(again, x)), 1e-12);
  }
}

// The list of the executor is not locked, so nobody may run a module meanwhile; that threads register at once is bnfold's to get right.
TEST_F(Threads, RegisterAtOnce) {
  const jit::Module module = jit::freeze(make_module());
  const at::Tensor expected = run(module.deepcopy(), x);
  at_once([](int) {
    for (int time = 0; time < 20; ++time) register_pass();
  });
  EXPECT_TRUE(pass_is_registered());
  for (int time = 0; time < 3; ++time) EXPECT_LE(relative_error(run(module, x), expected), 1e-12);
  at_once([](int) {
    for (int time = 0; time < 20; ++time) unregister_pass();
  });
  EXPECT_FALSE(pass_is_registered());
}

}  // namespace
}  // namespace bnfold::test
