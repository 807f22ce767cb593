// The sizes that the values of a graph have in one run.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace bnfold {

using Observations = std::unordered_map<const torch::jit::Value*, std::vector<int64_t>>;

// Runs a copy of `graph` on `inputs`, self first. Values in branches, loops and tasks are not observed.
Observations observe(const torch::jit::Graph& graph, const std::vector<c10::IValue>& inputs);

// While one lives, the values of `graph`, forward of `module` flattened, have the ranks as types that they have in a run on `inputs`, as
// a trace leaves them; none where there are no inputs. Throws InputError where the module can't run on them.
class ObservedRanks {
 public:
  ObservedRanks(torch::jit::Graph& graph, const torch::jit::Module& module, const std::vector<c10::IValue>& inputs);
  ~ObservedRanks();

  ObservedRanks(const ObservedRanks&) = delete;
  ObservedRanks& operator=(const ObservedRanks&) = delete;

 private:
  torch::jit::Graph& graph_;
};

}  // namespace bnfold
