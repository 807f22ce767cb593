#include "graph/take_branch.h"

#include <vector>

namespace bnfold {

namespace jit = torch::jit;

void take_branch(jit::Node* condition, jit::Block* branch) {
  const std::vector<jit::Node*> nodes(branch->nodes().begin(), branch->nodes().end());
  for (jit::Node* node : nodes) node->moveBefore(condition);
  for (size_t i = 0; i < condition->outputs().size(); ++i) condition->output(i)->replaceAllUsesWith(branch->outputs().at(i));
  condition->destroy();
}

}  // namespace bnfold
