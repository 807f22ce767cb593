#include "knowledge/memory.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// An operator of LibTorch, whose schema tells what it does to memory.
bool is_known(const jit::Node* node) {
  return node->kind().is_aten() || is_step(node);
}

bool is_container(const jit::Value* value) {
  return value->type()->kind() == c10::TypeKind::ListType || value->type()->kind() == c10::TypeKind::DictType;
}

// The value that the node of `value` may hand through, null where the value is memory of its own.
const jit::Value* seen_through(const jit::Value* value) {
  const jit::Node* producer = value->node();
  if (producer->kind() == jit::prim::ListUnpack) return producer->input();
  const bool view = is_known(producer) && !producer->inputs().empty() && may_return_its_input(producer);
  return view && value == producer->outputs().at(0) ? producer->input(0) : nullptr;
}

// The values whose memory `value` may be; sets `unknown` where they can't be told.
std::vector<const jit::Value*> owners_of(const jit::Value* value, bool& unknown) {
  std::vector<const jit::Value*> owners;
  std::vector<const jit::Value*> pending = {value};
  while (!pending.empty()) {
    const jit::Value* alias = pending.back();
    pending.pop_back();
    const jit::Node* producer = alias->node();
    if (const jit::Value* source = seen_through(alias)) {
      pending.push_back(source);
    } else if (producer->kind() == jit::prim::If) {
      for (const jit::Block* branch : producer->blocks()) pending.push_back(branch->outputs().at(alias->offset()));
    } else {
      const bool carried = producer->kind() == jit::prim::Param && producer->owningBlock() != producer->owningGraph()->block();
      const bool plain = is_known(producer) || producer->kind() == jit::prim::Param;
      unknown |= carried || !plain || alias->type()->kind() != c10::TypeKind::TensorType;
      owners.push_back(alias);
    }
  }
  return owners;
}

}  // namespace

Writers writers_of(const jit::Value* value, const jit::Node* norm) {
  Writers writers;
  std::vector<const jit::Value*> pending = owners_of(value, writers.unknown);
  std::unordered_set<const jit::Value*> seen;
  while (!pending.empty()) {
    const jit::Value* alias = pending.back();
    pending.pop_back();
    if (!seen.insert(alias).second) continue;
    for (const jit::Use& use : alias->uses()) {
      const jit::Node* user = use.user;
      if (user == norm || reads_metadata_only(user, alias)) continue;
      if (writes_into(user, alias)) writers.nodes.push_back(user);
      if (user->kind() == jit::prim::ListConstruct && only_concatenation(user) != nullptr) continue;
      const bool passed_on = user->kind() == jit::prim::TupleConstruct || user->kind() == jit::prim::ListUnpack ||
                             (is_known(user) && use.offset == 0 && may_return_its_input(user));
      if (user->kind() == jit::prim::Return) {
        const jit::Node* owner = user->owningBlock()->owningNode();
        if (owner != nullptr) pending.insert(pending.end(), owner->outputs().begin(), owner->outputs().end());
      } else if (passed_on) {
        pending.insert(pending.end(), user->outputs().begin(), user->outputs().end());
      } else if (use.offset != 0 && is_container(user->input(0))) {
        writers.unknown = true;
      } else if (!is_known(user)) {
        writers.unknown |= user->kind() != jit::prim::RaiseException;
      }
    }
  }
  return writers;
}

bool may_be_written(const jit::Value* value) {
  const Writers writers = writers_of(value);
  return writers.unknown || !writers.nodes.empty();
}

bool read_the_same(const jit::Value* value, const jit::Node* one, const jit::Node* other, const jit::Node* norm) {
  const Writers writers = writers_of(value, norm);
  return !writers.unknown && std::all_of(writers.nodes.begin(), writers.nodes.end(), [&](const jit::Node* writer) {
    return writer->isBefore(one) == writer->isBefore(other);
  });
}

std::optional<jit::Use> only_reader(const jit::Value* value) {
  std::optional<jit::Use> reader;
  for (const jit::Use& use : value->uses()) {
    if (reads_metadata_only(use.user, value)) continue;
    if (reader) return std::nullopt;
    reader = use;
  }
  return reader;
}

bool is_only_reader(const jit::Node* node, const jit::Value* value) {
  const auto reader = only_reader(value);
  return reader && reader->user == node && value->node()->owningBlock() == node->owningBlock();
}

bool is_in_loop_behind(const jit::Node* reader, const jit::Node* producer) {
  for (const jit::Block* block = reader->owningBlock(); block != nullptr && block != producer->owningBlock();
       block = block->owningNode() != nullptr ? block->owningNode()->owningBlock() : nullptr) {
    if (block->owningNode() != nullptr && block->owningNode()->kind() == jit::prim::Loop) return true;
  }
  return false;
}

bool is_dense(const jit::Value* value) {
  static const std::unordered_set<std::string_view> elementwise = {"relu",    "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_",
                                                                   "sigmoid", "tanh",  "silu",  "silu_",  "gelu",     "dropout"};
  const jit::Node* producer = value->node();
  while (producer->kind().is_aten() && elementwise.count(producer->kind().toUnqualString()) != 0) {
    producer = producer->input(0)->node();
  }
  if (!producer->kind().is_aten()) return false;
  const std::string_view operation = producer->kind().toUnqualString();
  const bool layer = operation.find("conv") != std::string_view::npos || operation == "linear" || operation == "addmm" ||
                     operation == "batch_norm" || operation == "contiguous" || operation == "cat";
  return layer || keeps_channels(producer);
}

jit::Node* only_concatenation(const jit::Node* list) {
  jit::Node* concatenation = nullptr;
  for (const jit::Use& use : list->output()->uses()) {
    if (concatenation != nullptr || (use.user->kind() != jit::aten::cat && use.user->kind() != jit::aten::concat)) return nullptr;
    concatenation = use.user;
  }
  return concatenation;
}

}  // namespace bnfold
