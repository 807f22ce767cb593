#include "graph/addends.h"

#include "graph/constants.h"
#include "graph/memory.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

bool is_sum(const jit::Node* node) {
  return is_one_of(node, {"add", "sub"}) && weight_in_sum(node, 1).value_or(0) != 0;
}

std::vector<Addend> addends_of(jit::Value* value, double weight) {
  std::vector<Addend> addends;
  std::vector<Addend> pending = {{value, weight}};
  while (!pending.empty()) {
    const Addend addend = pending.back();
    pending.pop_back();
    const jit::Node* node = addend.value->node();
    if (!only_reader(addend.value)) continue;
    if (!is_sum(node)) {
      if (!constant_number(addend.value)) addends.push_back(addend);
      continue;
    }
    for (const size_t place : {size_t{0}, size_t{1}}) {
      pending.push_back({const_cast<jit::Node*>(node)->input(place), addend.weight * *weight_in_sum(node, place)});
    }
  }
  return addends;
}

}  // namespace bnfold
