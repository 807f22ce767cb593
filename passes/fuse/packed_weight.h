// Weights of convolutions in the order in memory that oneDNN's kernels read, as submodules that can be saved.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <string>
#include <vector>

#include "conv_geometry.h"

namespace bnfold {

// Whether this LibTorch has the operators for it.
bool can_pack_weights();

// Adds submodules to one module, all of one class. Saving writes a weight in its ordinary order and the geometry, loading orders it again:
// __getstate__ and __setstate__ of the class do so, with operators of LibTorch alone.
class WeightPacker {
 public:
  explicit WeightPacker(torch::jit::Module& module) : module_(module) {}

  // Packs `weight` [O, I/groups, H, W] into a submodule with a name like `name`, and returns its packed tensor as a value before `node`.
  // The order suits inputs of `input_size` [N, C, H, W]; others run too, where another one would suit them with a reorder in each run.
  torch::jit::Value* add(const std::string& name, const at::Tensor& weight, const ConvGeometry& geometry,
                         const std::vector<int64_t>& input_size, torch::jit::Node* node);

 private:
  void define_class();

  torch::jit::Module& module_;
  c10::ClassTypePtr class_;
};

}  // namespace bnfold
