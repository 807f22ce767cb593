// bnfold removes batch normalization from TorchScript modules, exactly.
//
//     torch::jit::Module model = torch::jit::load("model.pt");
//     model.eval();
//     bnfold::FoldResult result = bnfold::fold(model);
//     std::cout << result.report.to_table();
//     result.module.save("folded.pt");
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bnfold/report.h"
#include "bnfold/target.h"

namespace bnfold {

// What a call can fail with: one sentence that says what was wrong and what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  // Methods and attributes to keep beside forward. Empty: every method that no other method of the module calls.
  std::vector<std::string> preserved_attributes;

  // The rank of each argument of forward, self left out, where it is known. A linear layer before a norm needs rank 2; where the
  // graph and this list leave the rank open, the folded module checks it and raises an error for another one.
  // Each is from 0 to 64.
  std::vector<std::optional<int64_t>> input_ranks;

  // Arguments of forward as its users give them, self left out; those with a default may be left out. They tell the ranks in the place of
  // the list above, and a run on copies of them that of each value inside. InputError (bnfold/check.h) where the module can't run on them.
  std::vector<c10::IValue> example_inputs;

  // What the folded module is made for.
  Target target = Target::libtorch;

  // For developers: fold this many norms and scales at most, in the order in which they are found, and nothing else. Where a result is wrong,
  // halving the limit again and again finds the fold that makes it so.
  std::optional<int64_t> fold_limit;
};

struct FoldResult {
  torch::jit::Module module;
  Report report;
};

// Folds every batch norm of `module` that can be folded exactly, in forward and in the other methods that are kept.
//
// The module must be in eval mode; it stays as it was. The result is plain ATen and has only the parameters and buffers that its
// methods read: the layers that stay keep their names, a norm that was folded is gone. Parameters that did not change share their
// storage with those of `module`, as with torch.jit.freeze; buffers are copied. What is one submodule, list, dict or object under several
// names is one in the result too.
//
// The caller's autocast, inference and gradient modes change nothing.
//
// Throws Error: the module is in training mode, a preserved attribute does not exist, both input_ranks and example_inputs are given, or the
// module cannot be flattened.
FoldResult fold(const torch::jit::Module& module, const Options& options = {});

// torch::jit::freeze with every fold before it: takes the same arguments, throws the same errors, and returns the frozen module with the
// report of its folds. A module that can be frozen and not folded is frozen, with a warning that says why; its report is empty.
FoldResult freeze(const torch::jit::Module& module, const c10::optional<std::vector<std::string>>& preserved_attrs = c10::nullopt,
                  bool optimize_numerics = true);

// Reads Options from a JSON object, {} for the defaults: {"preserved_attributes": ["encode"], "input_ranks": [4, null],
// "target": "onnxruntime", "fold_limit": 3}.
// Throws Error where the text is no such object.
Options options_from_json(const std::string& text);

}  // namespace bnfold
