// Runs what AOTInductor compiled of a folded program, with LibTorch alone: run_aotinductor COMPILED.pt2 SHAPE
//
//     $ bnfold resnet50.pt2 folded.pt2
//     $ python -c "import torch; torch._inductor.aoti_compile_and_package(torch.export.load('folded.pt2'), package_path='compiled.pt2')"
//     $ run_aotinductor compiled.pt2 1,3,224,224
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <exception>
#include <iostream>

#include "input.h"

namespace {

int run(const std::string& path, const std::string& shape) {
  torch::inductor::AOTIModelPackageLoader model(path);
  const c10::InferenceMode inference_mode;
  const at::Tensor output = model.run({random_input(shape)}).at(0);
  std::cout << "output " << output.sizes() << ", sum " << output.sum().item<double>() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: run_aotinductor COMPILED.pt2 SHAPE\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2]);
  } catch (const c10::Error& error) {
    std::cerr << "run_aotinductor: " << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "run_aotinductor: " << error.what() << "\n";
  }
  return 1;
}
