// Writes a small TorchScript model, convolution -> batch norm -> ReLU -> mean, with random statistics: make_model MODEL.pt
#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <iostream>

using torch::jit::Module;

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: make_model MODEL.pt\n";
    return 2;
  }
  at::manual_seed(1);

  Module conv("__torch__.Conv");
  conv.register_parameter("weight", at::randn({10, 3, 3, 3}), false);
  conv.define("def forward(self, x): return torch.conv2d(x, self.weight, None, [1, 1], [1, 1])\n");

  Module norm("__torch__.Norm");
  norm.register_parameter("weight", at::randn({10}), false);
  norm.register_parameter("bias", at::randn({10}), false);
  norm.register_buffer("running_mean", at::randn({10}));
  norm.register_buffer("running_var", at::rand({10}) + 0.5);
  norm.define(
      "def forward(self, x):\n"
      "  return torch.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, False, 0.1, 1e-5, False)\n");

  Module model("__torch__.Model");
  model.register_module("conv", conv);
  model.register_module("norm", norm);
  model.define("def forward(self, x): return torch.relu(self.norm.forward(self.conv.forward(x))).mean([2, 3])\n");
  model.eval();
  model.save(argv[1]);
}
