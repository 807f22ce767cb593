// The primitives of a network and what they read and write, before there is memory for it.
#pragma once

#include <optional>
#include <vector>

#include "onednn/description.h"
#include "onednn/orders.h"

namespace bnfold::onednn {

constexpr size_t kAlignment = 64;  // bytes, of each buffer between the steps

// Where a value lies: in the memory between the steps, in what comes in or goes out, or in a constant.
struct Buffer {
  enum class Kind { between, input, output, constant } kind;
  size_t size = 0;    // bytes, between the steps
  size_t offset = 0;  // there
  size_t number = 0;  // of the input or output
  std::optional<dnnl::memory> constant = std::nullopt;
  // The first and the last primitive that use it.
  size_t first = static_cast<size_t>(-1);
  size_t last = 0;
};

// A tensor in a buffer.
struct Place {
  size_t buffer;
  Desc desc;
  size_t offset = 0;  // bytes
};

struct Argument {
  int role;  // DNNL_ARG_SRC
  Place place;
};

struct Primitive {
  dnnl::primitive primitive;
  std::vector<Argument> arguments;
};

struct Program {
  std::vector<Buffer> buffers;
  std::vector<Primitive> primitives;
  size_t memory = 0;  // bytes between the steps
};

// Chooses the primitives, and the orders of the values between them. Throws dnnl::error where there is none.
Program program_of(const Description& description);

// Gives each buffer between the steps a place in one piece of memory, where no other one lies that is used at the same time.
void lay_out(Program& program);

}  // namespace bnfold::onednn
