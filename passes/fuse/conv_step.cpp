// The step that a convolution becomes, as planned in fuse/conv.cpp.
#include <vector>

#include "fuse/activation.h"
#include "fuse/conv.h"
#include "fuse/step.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// The arguments behind weight and bias.
std::vector<jit::Value*> insert_geometry(jit::Graph& graph, const ConvGeometry& geometry) {
  std::vector<jit::Value*> inserted = {graph.insertConstant(geometry.padding)};
  if (geometry.transposed()) inserted.push_back(graph.insertConstant(geometry.output_padding));
  for (const auto* numbers : {&geometry.stride, &geometry.dilation}) inserted.push_back(graph.insertConstant(*numbers));
  inserted.push_back(graph.insertConstant(geometry.groups));
  return inserted;
}

const char* kind_of(const ConvFusion& fusion) {
  if (fusion.geometry.transposed()) return "mkldnn::_convolution_transpose_pointwise";
  return fusion.overwrites_addend ? "mkldnn::_convolution_pointwise_" : "mkldnn::_convolution_pointwise";
}

}  // namespace

jit::Value* apply(const ConvFusion& fusion, WeightPacker& packer) {
  jit::Node* last = fusion.last();
  jit::Graph& graph = *last->owningGraph();
  const jit::WithInsertPoint before(last);
  const Activation activation = fusion.activation != nullptr ? *activation_of(fusion.activation) : Activation();
  jit::Value* packed = packer.add_conv(fusion.layer, fusion.weight, fusion.geometry, fusion.input_size, last);
  std::vector<jit::Value*> inputs = {fusion.input(), packed, fusion.conv->namedInput("bias")};
  const auto geometry = insert_geometry(graph, fusion.geometry);
  inputs.insert(inputs.end(), geometry.begin(), geometry.end());
  if (fusion.sum == nullptr) {
    append_activation(activation, graph, inputs);
  } else {
    jit::Value* none = graph.insertConstant(c10::IValue());
    inputs.insert(inputs.begin() + (fusion.overwrites_addend ? 0 : 1), fusion.sum->input(fusion.addend));
    jit::Value* behind_sum = fusion.activation != nullptr ? graph.insertConstant(activation.name) : none;
    inputs.insert(inputs.end(), {graph.insertConstant("add"), none, behind_sum, insert_numbers(graph, {}), none});
  }
  jit::Value* step = insert_operator(kind_of(fusion), inputs, fusion.conv);
  replace_by_step(fusion.nodes(), step);
  return step;
}

}  // namespace bnfold
