// What a value on the way and the plan as a whole must fulfil.
#pragma once

#include <optional>
#include <vector>

#include "knowledge/decline.h"
#include "knowledge/find_norms.h"
#include "knowledge/knowledge.h"
#include "rules/edit.h"

namespace bnfold {

// What is written in place though the graph was made functional is memory that others may see.
std::optional<Decline> why_not_written(const torch::jit::Value* value, const ParameterStore& store);

// An affine goes back from `reader` only to what is made beside it, and not by the norm.
std::optional<Decline> why_not_reached(const torch::jit::Value* value, const torch::jit::Node* reader, const Norm& norm);

// Whether the affine is for a linear layer that may be called on a value of any rank.
bool is_along_last(const torch::jit::Value* value, const algebra::Affine& affine);

// Whether the affine is right there for every rank: that of such a layer, or of the channels behind linear(x).transpose(1, -1).
bool is_of_any_rank(const torch::jit::Value* value, const algebra::Affine& affine);

std::optional<Decline> why_not_of_rank(const torch::jit::Value* value, const algebra::Affine& affine, const Knowledge& known);

// batch_norm makes a permuted or sliced input dense, as view needs it.
std::optional<Decline> why_not_viewed(const torch::jit::Node* node, const Norm& norm, const Knowledge& known);

// The same norm of another part of a value, which goes along, is none that the affine meets elsewhere.
std::optional<Decline> why_not_along(const std::vector<Edit>& edits, const Norm& norm);

// Bounds stand beside the norm, so that nothing before it can become one. They have the norm's dtype, and so must the value, which the layers
// that take the affine tell.
std::optional<Decline> why_not_bounded(const std::vector<Edit>& edits, const Norm& norm, const Knowledge& known);

// batch_norm may be wider than its input, and then its output is as narrow as that. A sum or product of narrow and wide values is wide,
// where what goes into a narrow layer would be cut off. `reads_forward` tells whether something behind the norm lets the affine pass.
std::optional<Decline> why_not_in_dtype(const std::vector<Edit>& edits, const Norm& norm, const Knowledge& known,
                                        bool reads_forward);

// Values that are divided by scales, which the module never had, may take up a quarter of the exponents of the narrowest dtype. `stretch` is
// the largest factor by which one is.
std::optional<Decline> why_not_in_range(const std::vector<Edit>& edits, const Norm& norm, double stretch);

// A shift `lent` that is added to the norm's input and taken off again leaves a rounding error of its own size. So it is no larger than the
// values, whose spread the norm tells, but for a few bits in wide dtypes.
std::optional<Decline> why_not_in_spread(const std::vector<Edit>& edits, const Norm& norm, const at::Tensor& lent);

// A layer that takes in the norm's `shift` multiplies before the mean is taken off, and a mean that is large beside what is left leaves
// rounding errors of its own size.
std::optional<Decline> why_not_centered(const std::vector<Edit>& edits, const Norm& norm, const at::Tensor& shift);

}  // namespace bnfold
