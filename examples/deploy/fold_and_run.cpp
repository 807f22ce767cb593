// Folds a TorchScript model where it is deployed: fold_and_run MODEL.pt SHAPE [FOLDED.pt]
//
//     $ fold_and_run resnet50.pt 1,3,224,224 resnet50-folded.pt
#include <ATen/ATen.h>
#include <bnfold/bnfold.h>
#include <bnfold/files.h>
#include <torch/csrc/jit/api/module.h>

#include <exception>
#include <iostream>

#include "input.h"

namespace {

int fold_and_run(const std::string& path, const std::string& shape, const std::string& folded_path) {
  torch::jit::Module model = bnfold::load(path);
  model.eval();

  bnfold::FoldResult result = bnfold::fold(model);
  std::cout << result.report.to_table();

  const at::NoGradGuard no_grad;
  const at::Tensor input = random_input(shape);
  const at::Tensor before = model.forward({input}).toTensor();
  const at::Tensor after = result.module.forward({input}).toTensor();
  const double error = ((after - before).abs().max() / before.abs().max()).item<double>();
  std::cout << "largest error " << error << "\n";
  std::cout << "output " << after.sizes() << ", sum " << after.sum().item<double>() << "\n";

  if (!folded_path.empty()) result.module.save(folded_path);
  return error < 1e-4 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: fold_and_run MODEL.pt SHAPE [FOLDED.pt]\n";
    return 2;
  }
  try {
    return fold_and_run(argv[1], argv[2], argc == 4 ? argv[3] : "");
  } catch (const c10::Error& error) {
    std::cerr << "fold_and_run: " << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "fold_and_run: " << error.what() << "\n";
  }
  return 1;
}
