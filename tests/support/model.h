// Small TorchScript modules for tests, with parameters and statistics that hide no error.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <string>
#include <vector>

namespace bnfold::test {

// Scales of both signs, one of them zero where there are at least three.
at::Tensor random_scale(int64_t channels);

// A module in double under construction. Paths are dotted: "conv.weight" makes the submodule conv.
class Model {
 public:
  Model();

  Model& parameter(const std::string& path, const at::Tensor& tensor);
  Model& buffer(const std::string& path, const at::Tensor& tensor);

  // Weight, bias and running statistics of a norm: path.weight, path.bias, path.running_mean, path.running_var.
  Model& norm(const std::string& path, int64_t channels);

  // A weight of these sizes, and a bias [channels] where channels is not 0.
  Model& layer(const std::string& path, at::IntArrayRef weight_sizes, int64_t bias_channels = 0);

  // Adds a method in TorchScript: "def forward(self, x):\n ...".
  Model& define(const std::string& source);

  // Shorthand for forward(self, x) with these statements.
  Model& forward(const std::string& statements);

  torch::jit::Module module;

 private:
  torch::jit::Module owner(const std::string& path);
};

// The tensor `name` of the norm "norm", to be changed in place.
at::Tensor tensor_of(const Model& model, const std::string& name);

// Takes the shift from the norm "norm": its bias and running mean become 0.
Model& without_shift(Model& model);

// The TorchScript call of the convolution at `path` on `value`, with weight and bias.
std::string conv(const std::string& path, const std::string& value, int64_t padding = 0);

// The TorchScript call of the norm at `path` on `value`.
std::string batch_norm(const std::string& path, const std::string& value, bool training = false);

// u is conv1, with large weights in `narrow`, of x; v is conv2, in `wide`, of z, both of 4 channels; behind `joined`, an expression of u and v
// with `channels` channels, a norm in `wide` with a large scale.
Model two_dtypes(at::ScalarType narrow, at::ScalarType wide, const std::string& joined, int64_t channels = 4);

}  // namespace bnfold::test
