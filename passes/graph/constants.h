// The constant arguments of a node.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bnfold {

// Nothing where the value is no constant of that type.
std::optional<int64_t> constant_int(const torch::jit::Value* value);
std::optional<bool> constant_bool(const torch::jit::Value* value);
std::optional<std::string> constant_string(const torch::jit::Value* value);
std::optional<at::Tensor> constant_tensor(const torch::jit::Value* value);  // a defined one
std::optional<double> constant_number(const torch::jit::Value* value);      // of whatever numeric type

// A dimension of a value of rank `rank`, counted from the front; nothing where there is no such dimension, or where it counts from the end of a
// value whose rank is not known.
std::optional<int64_t> from_front(int64_t dimension, std::optional<int64_t> rank);

// The dimension, counted from the front, that a constant names; nothing where a value of rank `rank` has no such dimension, or where it
// counts from the end of a value whose rank is not known.
std::optional<int64_t> constant_dimension(const torch::jit::Value* value, std::optional<int64_t> rank);

// Likewise of a number or a list, for each of the dimensions that it names.
std::optional<std::vector<int64_t>> constant_dimensions(const torch::jit::Value* value, std::optional<int64_t> rank);

// A constant list, or one that is made of constants.
std::optional<std::vector<int64_t>> constant_ints(const torch::jit::Value* value);

// Likewise, of this length: one number stands for all.
std::optional<std::vector<int64_t>> constant_ints(const torch::jit::Value* value, size_t length);

// Whether it is such a list and holds `number` alone.
bool is_list_of(const torch::jit::Value* list, int64_t number);

// How often input `place` of a sum or difference counts; nothing where its alpha is computed.
std::optional<double> weight_in_sum(const torch::jit::Node* sum, size_t place);

// Whether the node has an argument of this name.
bool has_argument(const torch::jit::Node* node, const char* name);

// Whether the node is given nothing as the argument of this name, or has none.
bool is_left_out(const torch::jit::Node* node, const char* name);

// Which input of the node the argument of this name is; it must have one.
size_t argument_index(const torch::jit::Node* node, const char* name);

}  // namespace bnfold
