#include "support/model.h"

#include <fmt/format.h>

namespace bnfold::test {

namespace jit = torch::jit;

at::Tensor random_scale(int64_t channels) {
  at::Tensor scale = at::rand({channels}, at::kDouble) + 0.5;
  for (int64_t c = 0; c < channels; c += 2) scale[c].neg_();
  if (channels >= 3) scale[channels - 1].zero_();
  return scale;
}

Model::Model() : module("__torch__.TestModel", std::make_shared<jit::CompilationUnit>(), /*shouldMangle=*/true) {}

jit::Module Model::owner(const std::string& path) {
  jit::Module current = module;
  size_t start = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', start)) {
    const std::string name = path.substr(start, dot - start);
    if (!current.hasattr(name)) {
      current.register_module(name,
                              jit::Module("__torch__.TestLayer", module._ivalue()->compilation_unit(), /*shouldMangle=*/true));
    }
    current = current.attr(name).toModule();
    start = dot + 1;
  }
  return current;
}

Model& Model::parameter(const std::string& path, const at::Tensor& tensor) {
  owner(path).register_parameter(path.substr(path.rfind('.') + 1), tensor, /*is_buffer=*/false);
  return *this;
}

Model& Model::buffer(const std::string& path, const at::Tensor& tensor) {
  owner(path).register_buffer(path.substr(path.rfind('.') + 1), tensor);
  return *this;
}

Model& Model::norm(const std::string& path, int64_t channels) {
  parameter(path + ".weight", random_scale(channels));
  parameter(path + ".bias", at::randn({channels}, at::kDouble));
  buffer(path + ".running_mean", at::randn({channels}, at::kDouble));
  return buffer(path + ".running_var", at::rand({channels}, at::kDouble) + 0.2);
}

Model& Model::layer(const std::string& path, at::IntArrayRef weight_sizes, int64_t bias_channels) {
  parameter(path + ".weight", at::randn(weight_sizes, at::kDouble));
  if (bias_channels > 0) parameter(path + ".bias", at::randn({bias_channels}, at::kDouble));
  return *this;
}

Model& Model::define(const std::string& source) {
  module.define(source);
  return *this;
}

Model& Model::forward(const std::string& statements) {
  std::string source = "def forward(self, x):\n";
  size_t start = 0;
  while (start < statements.size()) {
    const size_t end = std::min(statements.find('\n', start), statements.size());
    source += "  " + statements.substr(start, end - start) + "\n";
    start = end + 1;
  }
  return define(source);
}

at::Tensor tensor_of(const Model& model, const std::string& name) {
  return model.module.attr("norm").toModule().attr(name).toTensor();
}

Model& without_shift(Model& model) {
  for (const char* name : {"bias", "running_mean"}) tensor_of(model, name).zero_();
  return model;
}

std::string conv(const std::string& path, const std::string& value, int64_t padding) {
  return fmt::format("torch.conv2d({1}, self.{0}.weight, self.{0}.bias, [1, 1], [{2}, {2}], [1, 1], 1)", path, value, padding);
}

std::string batch_norm(const std::string& path, const std::string& value, bool training) {
  return fmt::format(
      "torch.batch_norm({1}, self.{0}.weight, self.{0}.bias, self.{0}.running_mean, self.{0}.running_var, {2}, 0.1, 1e-05, True)",
      path, value, training ? "True" : "False");
}

Model two_dtypes(at::ScalarType narrow, at::ScalarType wide, const std::string& joined, int64_t channels) {
  Model model;
  model.layer("conv1", {4, 3, 1, 1}, 4).layer("conv2", {4, 3, 1, 1}, 4).norm("norm", channels);
  model.module.attr("conv1").toModule().attr("weight").toTensor().mul_(10);
  tensor_of(model, "weight").fill_(1000);
  tensor_of(model, "running_var").fill_(1);
  model.define(fmt::format("def forward(self, x, z):\n  u = {}\n  v = {}\n  y = {}\n  return {}\n", conv("conv1", "x"),
                           conv("conv2", "z"), joined, batch_norm("norm", "y")));
  model.module.to(wide);
  model.module.attr("conv1").toModule().to(narrow);
  return model;
}

}  // namespace bnfold::test
