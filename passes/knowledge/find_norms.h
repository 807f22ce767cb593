// Finds the norms of a graph and reads what they compute.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "algebra/affine.h"
#include "graph/parameter_store.h"
#include "knowledge/decline.h"

namespace bnfold {

// How large the values of each channel are, [C] in double.
struct Spread {
  at::Tensor mean;
  at::Tensor deviation;
};

// aten::batch_norm and aten::instance_norm.
bool is_normalizing(const torch::jit::Node* node);

// A norm, or a constant scale, which is folded as a norm is.
struct Norm {
  enum Kind {
    // aten::batch_norm, aten::instance_norm with running statistics, and what is written out, as x * scale + shift or (x - mean) / deviation,
    // with constants of each channel
    batch_norm,
    // x * scale, a layer scale, and x * scale + shift of one number each, or behind a layer norm that is written out, or (x - mean) / deviation
    // of what the caller gave
    scale,
  };

  Kind kind;
  std::vector<torch::jit::Node*> nodes;            // in the order of the graph; the last one makes the output
  size_t input_place;                              // which input of the first node, or of `reader`, is normalized
  torch::jit::Value* leaf;                         // a static tensor of the norm, beside which new ones are put
  std::string name;                                // dotted path: "layer1.0.bn1"
  std::variant<algebra::Affine, Decline> content;  // what it computes, or why that is no affine
  bool along_channels;                             // the affine is [C], along dimension 1; else it broadcasts against the input
  at::ScalarType dtype;                            // of its parameters
  torch::jit::Node* reader = nullptr;      // in one branch, where the only node is a condition whose branches are this norm
  std::optional<int64_t> only_rank = {};   // of the input, for which it is this norm
  std::optional<int64_t> never_rank = {};  // of the input, for which it may be something else
  std::optional<Spread> spread = {};       // of the input, where running statistics tell it

  torch::jit::Node* node() const { return nodes.back(); }
  torch::jit::Value* input() const { return (reader != nullptr ? reader : nodes.front())->input(input_place); }
  bool is_made_by(const torch::jit::Node* node) const;

  // Whether its output lies in memory in the order of its input, whatever that is, as sums and products do.
  bool keeps_order() const { return reader == nullptr && !is_normalizing(node()); }

  // Whether it is this norm for an input of rank `rank`, where nothing is known of that.
  bool allows(std::optional<int64_t> rank) const;

  // What it computes, for an input of rank `rank`. There must be an affine.
  algebra::Affine affine(int64_t rank) const;
};

// aten::batch_norm and aten::instance_norm, and products that may be part of an affine that is written out.
bool may_be_norm(const torch::jit::Node* node);

// The nodes of `graph` that may be norms or constant scales, in its order, those in inner blocks and forked graphs too.
std::vector<torch::jit::Node*> find_norms(const torch::jit::Graph& graph);

// Those of them that are none of the branches of another one.
std::vector<torch::jit::Node*> find_whole_norms(const torch::jit::Graph& graph, const ParameterStore& store);

// The norm or constant scale that `node` is, nothing where it is neither. Folding another norm may change what it computes.
std::optional<Norm> read_norm(torch::jit::Node* node, const ParameterStore& store);

}  // namespace bnfold
