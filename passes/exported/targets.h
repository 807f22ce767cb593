// What the numbers and names of the JSON stand for in LibTorch.
#pragma once

#include <ATen/core/function_schema.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <string>

namespace bnfold::exported {

// The operator that a target as "torch.ops.aten.conv2d.default" names; null where it names none of ATen, or one that this LibTorch lacks.
const c10::FunctionSchema* schema_of(const std::string& target);

// "torch.ops.aten.add.Tensor"
std::string target_of(const c10::FunctionSchema& schema);

// The operator on numbers that a target as "_operator.add" or "torch.ops.aten.sym_size.int" stands for; nothing where TorchScript computes
// with numbers in another way, or not at all.
std::optional<c10::Symbol> number_operator(const std::string& target);

// A kind for the node of a target that no rule speaks for, which is that of no operator: "opaque::torchvision.nms", or "higher_order::cond"
// for a region that writes into nothing.
c10::Symbol opaque_kind(const std::string& target, bool writes = true);

// Nothing where this LibTorch has none of that number.
std::optional<at::ScalarType> dtype_of(int64_t number);
std::optional<at::MemoryFormat> memory_format_of(int64_t number);
std::optional<at::Layout> layout_of(int64_t number);

// Of the dtypes that a fold writes.
int64_t number_of(at::ScalarType dtype);
int64_t number_of(at::MemoryFormat format);

}  // namespace bnfold::exported
