// A network of oneDNN's primitives, made once for inputs of one size, with one piece of memory for all that lies between its steps.
#pragma once

#include <memory>
#include <vector>

#include "onednn/description.h"

namespace bnfold::onednn {

class Network {
 public:
  // Throws std::exception where oneDNN has no primitive for a step.
  explicit Network(Description description);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const std::vector<Sizes>& output_sizes() const;

  // Reads inputs in the orders that were described, and writes contiguous outputs. May run in several threads at once. Throws std::exception
  // where a primitive fails.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const;

 private:
  class Executions;
  std::unique_ptr<Executions> executions_;
};

}  // namespace bnfold::onednn
