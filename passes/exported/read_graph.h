// Makes of an exported program what the fold of a module works on: a graph, and a module that holds its static tensors.
//
// Operators of ATen become their nodes, with the schemas that TorchScript knows. Everything else becomes an opaque node: no rule speaks for
// it, and it may write into whatever it reads. Each node of the JSON has a source of its own, which tells its place in the user's code; what
// a fold makes in the place of a node inherits it, and so belongs to the node of the JSON.
#pragma once

#include <fmt/format.h>
#include <torch/csrc/jit/frontend/source_range.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "bnfold/bnfold.h"
#include "bnfold/report.h"
#include "exported/json.h"
#include "graph/program.h"

namespace bnfold::exported {

using Tensors = std::unordered_map<std::string, at::Tensor>;  // by dotted names

// What became of a node of the JSON.
struct NodeRecord {
  size_t number;                       // among the nodes
  c10::Symbol kind;                    // of the node that stands for it
  bool is_opaque = false;              // it reads all values that the JSON names, in that order
  std::vector<std::string> arguments;  // of the JSON, by input of the node; empty names where there is none
  std::vector<size_t> inputs;          // the numbers of the values that it read
  std::vector<std::string> results;    // the names of what it makes, or of the parts of the list that it makes
};

struct ProgramGraph {
  Program program;                                                    // one method, forward
  std::unordered_map<const torch::jit::Source*, NodeRecord> records;  // by the source of the node
  std::vector<std::shared_ptr<torch::jit::Source>> sources;           // keeps these alive
  std::unordered_map<size_t, std::string> inputs;                     // the names of the inputs of the graph by their numbers
  std::vector<KeptNorm> hidden;                                       // norms inside of opaque nodes

  torch::jit::Graph& graph() const { return *program.methods.front().graph; }
};

// A module with the parameters, buffers and constants of a signature that are among `tensors`.
torch::jit::Module module_of(const Json& signature, const Tensors& tensors);

// The dotted name of the tensor that an input stands for, empty where it is none.
std::string path_of(const Json& input_spec);

// The JSON of a program, with its regions without gradients inlined. Throws Error where it is written in another schema.
Json parsed_program(const std::string& text);

// Throws nlohmann's exceptions and std::out_of_range where `program` is none.
ProgramGraph read_graph(const Json& program, const Tensors& tensors);

// What `read` returns, or an Error where something is missing in the program that it reads.
template <typename Read>
auto reading(const Read& read) {
  const auto refuse = [](const std::exception& error) {
    return Error(fmt::format("this is no program that torch.export wrote: {}", error.what()));
  };
  try {
    return read();
  } catch (const Json::exception& error) {
    throw refuse(error);
  } catch (const std::out_of_range& error) {
    throw refuse(error);
  }
}

}  // namespace bnfold::exported
