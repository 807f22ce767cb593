// libFuzzer's way to the graphs of fuzz_graphs.cpp: it finds byte strings that reach new code.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cstdlib>

#include "generate_graph.h"
#include "properties.h"

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  at::set_num_threads(1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bnfold::fuzz;
  Choices choices(std::vector<uint8_t>(data, data + size));
  const IrProgram program = generate_graph(choices);
  const Outcome outcome = check(program);
  if (outcome.broken.empty()) return 0;
  fmt::print(stderr, "broken: {}\n{}\n\n{}EXPECT_EQ(check(program).broken, \"\");\n", outcome.broken, outcome.detail,
             as_code(program));
  std::abort();
}
