// Weights in the order in memory that oneDNN's kernels read, as submodules that can be saved.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <map>
#include <string>
#include <vector>

#include "graph/conv_geometry.h"

namespace bnfold {

// Whether this LibTorch has the operators for it.
bool can_pack_weights();

// Whether it is a tensor on the CPU of a dtype that oneDNN's kernels take there: float, and bfloat16 or half where the CPU has instructions
// for it.
bool can_be_packed(const at::Tensor& weight);

// Adds submodules to one module, of one class for each kind of layer. Saving writes a weight in its ordinary order and what the order depends
// on, loading orders it again: __getstate__ and __setstate__ of the class do so, with operators of LibTorch alone.
class WeightPacker {
 public:
  // For the nodes of `main`, the graph of a method of `module`, and of its tasks.
  WeightPacker(torch::jit::Module& module, torch::jit::Graph& main) : module_(module), main_(main) {}

  // Packs `weight` [O, I/groups, H, W], of a transposed convolution [I, O, H, W], into a submodule with a name like `name`, and returns its
  // packed tensor as a value before `node`. There may be three spatial dimensions. The order suits inputs of `input_size` [N, C, H, W];
  // others run too, where another one would suit them with a reorder in each run.
  torch::jit::Value* add_conv(const std::string& name, const at::Tensor& weight, const ConvGeometry& geometry,
                              const std::vector<int64_t>& input_size, torch::jit::Node* node);

  // The same for the weight [O, I] of a linear layer, in an order that suits inputs of `rows` rows.
  torch::jit::Value* add_linear(const std::string& name, const at::Tensor& weight, int64_t rows, torch::jit::Node* node);

 private:
  struct PackedClass;
  static const PackedClass& of_convs();
  static const PackedClass& of_transposed_convs();
  static const PackedClass& of_linears();

  torch::jit::Value* add(const PackedClass& kind, const std::string& name, const at::Tensor& weight,
                         const std::vector<c10::IValue>& arguments, torch::jit::Node* node);
  torch::jit::Value* weight_before(torch::jit::Node* node, const std::string& attribute);
  c10::ClassTypePtr defined(const PackedClass& kind);

  torch::jit::Module& module_;
  torch::jit::Graph& main_;
  std::map<const PackedClass*, c10::ClassTypePtr> classes_;
};

}  // namespace bnfold
