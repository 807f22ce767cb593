// The input that all programs run on, so that their results can be compared.
#pragma once

#include <ATen/ATen.h>

#include <sstream>
#include <string>
#include <vector>

// A random tensor, the same in every run, of a shape such as "1,3,224,224".
inline at::Tensor random_input(const std::string& shape) {
  std::vector<int64_t> sizes;
  std::stringstream text(shape);
  for (std::string size; std::getline(text, size, ',');) sizes.push_back(std::stoll(size));
  at::manual_seed(0);
  return at::randn(sizes);
}
