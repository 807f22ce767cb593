// Who reads a value that an affine is to change.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

#include "knowledge/decline.h"
#include "knowledge/find_norms.h"
#include "knowledge/knowledge.h"
#include "rules/edit.h"

namespace bnfold {

// Who beside `readers`, which are on the way to `norm`, reads the contents of `value`.
std::vector<torch::jit::Use> other_readers(const Norm& norm, const torch::jit::Value* value,
                                           const std::vector<torch::jit::Use>& readers);

// Whether `reader`, of a value that is to become affine(value), takes only a part of it that stays as it is.
bool is_untouched(const torch::jit::Use& reader, const algebra::Affine& affine, const Norm& norm, const Knowledge& known,
                  const std::vector<Edit>& planned);

// That `writer` stands in the way, for it overwrites a value.
Decline written_by(const torch::jit::Node* writer);

// That `reader` stands in the way, for it reads `value` or overwrites it.
Decline read_by(const torch::jit::Use& reader, const torch::jit::Value* value);

}  // namespace bnfold
