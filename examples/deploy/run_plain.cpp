// Runs a folded model with LibTorch alone, nothing of bnfold in the program: run_plain FOLDED.pt SHAPE
//
//     $ run_plain resnet50-folded.pt 1,3,224,224
#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <exception>
#include <iostream>

#include "input.h"

namespace {

int run(const std::string& path, const std::string& shape) {
  torch::jit::Module model = torch::jit::load(path);
  const at::NoGradGuard no_grad;
  const at::Tensor output = model.forward({random_input(shape)}).toTensor();
  std::cout << "output " << output.sizes() << ", sum " << output.sum().item<double>() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: run_plain FOLDED.pt SHAPE\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2]);
  } catch (const c10::Error& error) {
    std::cerr << "run_plain: " << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "run_plain: " << error.what() << "\n";
  }
  return 1;
}
