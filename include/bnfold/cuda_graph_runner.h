// Runs a module on a GPU as one CUDA graph, captured once for inputs of fixed sizes: one launch for all of its kernels, not one for each.
//
//     bnfold::CudaGraphRunner run(bnfold::optimize_for_inference(model, {image}).module, {image});
//     at::Tensor scores = run({other_image}).toTensor();
//
// Not a part of the library, as it alone needs the headers and the runtime of CUDA: find_package(CUDAToolkit), CUDA::cudart.
#pragma once

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_iterator.h>

#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "bnfold/check.h"

namespace bnfold {

// For one thread at a time.
class CudaGraphRunner {
 public:
  // Runs forward a few times on the inputs, all on one GPU, and captures it; buffers that it writes are put back. `module` is shared, not
  // copied: what is written into its parameters later counts.
  //
  // Throws InputError where there are no inputs, or they are not on one GPU; Error where forward assigns an attribute, which a replay would
  // not do, or where CUDA can't capture what it does, as reading a value back to decide a branch.
  CudaGraphRunner(const torch::jit::Module& module, const std::vector<at::Tensor>& example_inputs) : module_(module) {
    require_one_gpu(example_inputs);
    require_no_assignment();
    const at::NoGradGuard no_grad;
    const c10::cuda::CUDAGuard device(example_inputs.front().device());
    for (const at::Tensor& input : example_inputs) inputs_.push_back(input.clone());
    const SavedBuffers buffers(module_);
    c10::cuda::getCurrentCUDAStream().synchronize();
    const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool());
    // The executor profiles and compiles in its first runs.
    for (int run = 0; run < kRunsBefore; ++run) forward();
    side.current_stream().synchronize();
    capture();
  }

  // Copies the inputs, which may be on any device, to where the graph reads them, and replays it. The result is new memory. Throws InputError
  // where number, sizes or dtypes are not those of the example inputs.
  c10::IValue operator()(const std::vector<at::Tensor>& inputs) {
    require_same(inputs);
    const at::NoGradGuard no_grad;
    const c10::cuda::CUDAGuard device(inputs_.front().device());
    for (size_t i = 0; i < inputs.size(); ++i) inputs_[i].copy_(inputs[i], /*non_blocking=*/true);
    graph_->replay();
    return output_.deepcopy();
  }

 private:
  static constexpr int kRunsBefore = 3;

  class SavedBuffers {
   public:
    explicit SavedBuffers(const torch::jit::Module& module) {
      for (const at::Tensor& buffer : module.buffers()) saved_.emplace_back(buffer, buffer.clone());
    }
    ~SavedBuffers() {
      for (auto& [buffer, saved] : saved_) buffer.copy_(saved);
    }
    SavedBuffers(const SavedBuffers&) = delete;
    SavedBuffers& operator=(const SavedBuffers&) = delete;

   private:
    std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
  };

  static void require_one_gpu(const std::vector<at::Tensor>& inputs) {
    if (inputs.empty()) throw InputError("there are no example inputs to capture a CUDA graph on");
    for (const at::Tensor& input : inputs) {
      if (input.is_cuda() && input.device() == inputs.front().device()) continue;
      throw InputError("a CUDA graph is captured on inputs on one GPU, and one of these is on " + input.device().str());
    }
  }

  void require_no_assignment() const {
    auto graph = module_.get_method("forward").graph()->copy();
    torch::jit::Inline(*graph);
    torch::jit::DepthFirstGraphNodeIterator nodes(graph);
    for (const torch::jit::Node* node = nodes.next(); node != nullptr; node = nodes.next()) {
      if (node->kind() != torch::jit::prim::SetAttr) continue;
      throw Error("forward assigns the attribute " + node->s(torch::jit::attr::name) + ", which a CUDA graph does not repeat");
    }
  }

  c10::IValue forward() { return module_.forward({inputs_.begin(), inputs_.end()}); }

  void capture() {
    graph_ = std::make_unique<at::cuda::CUDAGraph>();
    graph_->capture_begin();
    try {
      output_ = forward();
      graph_->capture_end();
    } catch (const std::exception& error) {
      end_failed_capture();
      const std::string what = error.what();
      throw Error("CUDA can't capture this module: " + what.substr(0, what.find('\n')));
    }
  }

  void end_failed_capture() {
    try {
      graph_->capture_end();
    } catch (const std::exception&) {  // says again that the capture failed
    }
  }

  void require_same(const std::vector<at::Tensor>& inputs) const {
    bool same = inputs.size() == inputs_.size();
    for (size_t i = 0; same && i < inputs.size(); ++i) {
      same = inputs[i].sizes() == inputs_[i].sizes() && inputs[i].scalar_type() == inputs_[i].scalar_type();
    }
    if (!same) throw InputError("the CUDA graph was captured for " + described(inputs_) + ", not for " + described(inputs));
  }

  // "Float [1, 3, 224, 224]"
  static std::string described(const std::vector<at::Tensor>& inputs) {
    std::ostringstream text;
    for (size_t i = 0; i < inputs.size(); ++i) {
      text << (i == 0 ? "" : ", ") << c10::toString(inputs[i].scalar_type()) << " " << inputs[i].sizes();
    }
    return inputs.empty() ? "no inputs" : text.str();
  }

  torch::jit::Module module_;
  std::vector<at::Tensor> inputs_;  // where the graph reads
  c10::IValue output_;              // where it writes
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace bnfold
