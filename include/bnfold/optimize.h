// Makes a module fast where it runs: folds, freezes, and computes what stands behind a layer in the layer's own step.
//
//     bnfold::OptimizeResult result = bnfold::optimize_for_inference(model, {image});
//     result.module.save("optimized.pt");
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>
#include <string_view>
#include <vector>

#include "bnfold/report.h"

namespace bnfold {

// Why a layer, or what stands behind it, is computed in a step of its own. `name` below gives it as text.
enum class FusionObstacle {
  layer_unsupported,        // oneDNN has no such step for this kind of layer
  weight_not_static,        // the weight or an argument is computed while the module runs, or the padding is uneven
  weight_unsupported,       // of a dtype that oneDNN does not compute with on this CPU
  input_not_batched,        // the input has no batch dimension
  value_changed_in_place,   // something writes into the input of the layer, into an addend, or into what comes from it
  value_has_other_readers,  // something else reads what lies between the two steps
  operand_unsupported,      // a factor of the sum, the activation behind a sum, or uneven padding
  sizes_unknown,      // nothing proves that addends have one size and dtype, or no example told how many rows a linear layer has
  product_too_small,  // the linear layer is as fast without it
};

// The identifier of an obstacle: "sizes_unknown".
std::string_view name(FusionObstacle obstacle);

// A layer that is computed in one step with what stood behind it.
struct FusedLayer {
  std::string name;   // dotted path of the layer: "layer1.0.conv3"
  std::string steps;  // what the step computes: "conv2d, add, relu"
};

// A step that was not taken into the layer before it, or a layer that stayed as it was.
struct UnfusedStep {
  std::string name;  // dotted path of the layer
  std::string step;  // "add"; for the layer itself, "conv2d"
  FusionObstacle obstacle;
  std::string detail;
};

// What computes the layers of an optimized module on a CPU.
enum class Runtime {
  libtorch,  // the steps of oneDNN that LibTorch has as operators
  onednn,    // networks of oneDNN's primitives, where a module has convolutions that follow each other; the rest as libtorch
};

struct OptimizeResult {
  torch::jit::Module module;
  Report report;  // of the fold
  std::vector<FusedLayer> fused;
  std::vector<UnfusedStep> unfused;
  std::vector<std::string> in_networks;  // the layers, dotted paths, that networks of oneDNN's primitives compute

  // That of the report, with the members fused, unfused and in_networks.
  std::string to_json() const;
};

// Folds every batch norm of `module` as bnfold::freeze does, freezes forward and what `preserved_attrs` names, and fuses. On a CPU each
// convolution with what stands behind it, a sum of values of one size, a ReLU, ReLU6, hardtanh, clamp, SiLU, GELU, hardswish, hardsigmoid,
// sigmoid, tanh or leaky ReLU, becomes one of oneDNN's steps in channels_last, its weight reordered once; so does each linear layer of many rows
// with the activation behind it. On a GPU LibTorch's own fusion for cuDNN is made. Where LibTorch has no such steps, as 1.13, the module is
// frozen alone.
//
// `example_inputs` are the arguments of forward; those with a default may be left out. With them the weights are ordered for their sizes, linear
// layers of many rows become steps, and the result is compared with `module`. Other sizes run as well, and give the same as `module`; an input
// of another rank may raise an error that says so.
//
// The result runs and loads with LibTorch alone: the file holds the weights in their ordinary order, and loading orders them again. It computes
// no gradients. NaN may become a bound in an activation.
//
// With Runtime::onednn that is so for the layers that stay outside of networks alone. A network is made for each size of its inputs when it first comes,
// with all its primitives and one piece of memory between them; where oneDNN has none, LibTorch's operators run. What has such a network, and the program that
// makes it, needs the library bnfold::onednn (bnfold/onednn.h), and so does a program that loads the file.
//
// Throws what bnfold::freeze throws; InputError where the module can't run on the inputs; Error where the result differs from `module` on them
// by more than rounding, or Runtime::onednn is asked for and the library is not loaded.
OptimizeResult optimize_for_inference(const torch::jit::Module& module, const std::vector<c10::IValue>& example_inputs = {},
                                      const std::vector<std::string>& preserved_attrs = {}, Runtime runtime = Runtime::libtorch);

}  // namespace bnfold
