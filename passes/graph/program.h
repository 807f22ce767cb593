// A flattened module: one inlined graph a method, over the module that came in, which nothing here changes.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <vector>

namespace bnfold {

struct Program {
  struct Method {
    std::string name;
    std::shared_ptr<torch::jit::Graph> graph;
  };

  torch::jit::Module module;
  std::vector<Method> methods;
  std::vector<std::string> preserved_values;  // attributes that are no methods and that the user wants to keep
};

}  // namespace bnfold
