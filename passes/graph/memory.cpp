#include "graph/memory.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operator_table.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

const char kOutside = 0;  // its address stands for all that is not the graph's own

// One number, string or device, or none.
bool is_scalar(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::NoneType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::ComplexType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::DeviceObjType:
      return true;
    default:
      return false;
  }
}

// Whether a value of this type has memory that something may write into.
bool has_memory(const jit::Value* value) {
  return !is_scalar(*value->type()) && !value->type()->is_module();
}

// A branch or another region of an exported program, named like this only where nothing in it writes: exported/read_graph.h.
bool is_region(const jit::Node* node) {
  return std::string_view(node->kind().toQualString()).substr(0, 14) == "higher_order::";
}

// Whether the schema was written by hand and so says what the operator writes into, as LibTorch takes it to.
bool is_told_by_schema(const jit::Node* node) {
  const jit::Operator* op = node->maybeOperator();
  return op != nullptr && (op->aliasAnalysisKind() == c10::AliasAnalysisKind::FROM_SCHEMA ||
                           op->aliasAnalysisKind() == c10::AliasAnalysisKind::PURE_FUNCTION);
}

bool tells_what_it_writes(const jit::Node* node) {
  if (node->kind() == jit::prim::PythonOp) return false;
  const bool of_libtorch = node->kind().is_aten() || node->kind().is_prim() || is_step(node);
  return of_libtorch || is_region(node) || is_told_by_schema(node);
}

// What makes memory of its own from all that it reads. Steps say in their schema what they overwrite.
bool is_fresh(const jit::Node* node) {
  return operator_of(node).storage == Storage::fresh;
}

// A list or tuple that is read where it stands, by what makes memory of its own, or is the graph's output.
bool is_read_at_once(const jit::Node* node) {
  if (node->kind() != jit::prim::ListConstruct && node->kind() != jit::prim::TupleConstruct) return false;
  const auto& uses = node->output()->uses();
  return std::all_of(uses.begin(), uses.end(), [](const jit::Use& use) { return is_output(use) || is_fresh(use.user); });
}

}  // namespace

bool writes_statistics(const jit::Node* node, const jit::Value* value) {
  static const OperatorNames norms = {"batch_norm",       "native_batch_norm", "_batch_norm_impl_index",
                                      "cudnn_batch_norm", "instance_norm",     "batch_norm_update_stats"};
  if (!is_one_of(node, norms)) return false;
  const char* training = node->kind() == jit::aten::instance_norm ? "use_input_stats" : "training";
  if (has_argument(node, training) && constant_bool(node->namedInput(training)) == false) return false;
  return !value->mustBeNone() && (value == node->namedInput("running_mean") || value == node->namedInput("running_var"));
}

namespace {

// What an attribute or a constant is made of: its storages, lists, dicts and objects; nothing where something can't be looked into.
std::optional<std::vector<const void*>> parts_of(const c10::IValue& content) try {
  c10::IValue::HashAliasedIValues parts;
  content.getSubValues(parts);
  std::vector<const void*> keys;
  for (const c10::IValue& part : parts) {
    if (part.isTensor()) {
      keys.push_back(storage_of(part.toTensor()));
    } else if (part.isPtrType()) {
      keys.push_back(part.internalToPointer());
    }
  }
  return keys;
} catch (const c10::Error&) {
  return std::nullopt;
}

// The node that made the memory of `value`, a condition where each of its branches makes it; null where that can't be told.
const jit::Node* maker_of(const jit::Value* value) {
  while (operator_of(value->node()).storage == Storage::view) value = value->node()->input(0);
  const jit::Node* node = value->node();
  if (is_fresh(node)) return node;
  if (node->kind() != jit::prim::If) return nullptr;
  const auto branches = node->blocks();
  const bool made = std::all_of(branches.begin(), branches.end(), [&](const jit::Block* branch) {
    const jit::Node* maker = maker_of(branch->outputs().at(value->offset()));
    return maker != nullptr && is_inside(maker->owningBlock(), branch);
  });
  return made ? node : nullptr;
}

}  // namespace

const void* storage_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

bool may_hold_tensor(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::ListType:
    case c10::TypeKind::DictType:
    case c10::TypeKind::TupleType:
    case c10::TypeKind::OptionalType: {
      const auto parts = type.containedTypes();
      return std::any_of(parts.begin(), parts.end(), [](const auto& part) { return may_hold_tensor(*part); });
    }
    default:
      return !is_scalar(type);
  }
}

Memory::Memory(const jit::Graph& graph, Content content) : content_(std::move(content)) {
  expose(graph.inputs());
  read(graph.block());
}

void Memory::read(const jit::Block* block) {
  for (const jit::Node* node : const_cast<jit::Block*>(block)->nodes()) read(node);
}

void Memory::read(const jit::Node* node) {
  for (const jit::Block* block : node->blocks()) read(block);
  read_writes(node);
  switch (node->kind()) {
    case jit::prim::Constant:
    case jit::prim::GetAttr:
      return read_leaf(node->output());
    case jit::prim::SetAttr:
      return expose({node->input(1)});
    case jit::prim::If:
      return read_condition(node);
    case jit::prim::Loop:
      return read_loop(node);
    case jit::prim::fork:
      return read_task(node);
    case jit::prim::PythonOp:  // which may keep what it was given
      expose(node->inputs());
      return expose(node->outputs());
    default:
      break;
  }
  read_outputs(node);
}

void Memory::read_outputs(const jit::Node* node) {
  switch (operator_of(node).storage) {
    case Storage::fresh:
      return;
    case Storage::view:
      for (const jit::Value* output : node->outputs()) share(output, node->input(0));
      return;
    case Storage::unknown:
      if (!is_read_at_once(node)) share_all(node);
  }
}

void Memory::read_leaf(const jit::Value* value) {
  if (!has_memory(value)) return;
  const auto content = content_ ? content_(value) : jit::toIValue(value);
  const auto parts = content ? parts_of(*content) : std::nullopt;
  if (!parts) return expose({value});
  for (const void* part : *parts) {
    if (part != nullptr) share(value, part);
  }
  class_of(value).is_leaf = true;
}

void Memory::read_condition(const jit::Node* node) {
  for (const jit::Block* branch : node->blocks()) {
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      if (has_memory(node->outputs()[i])) share(node->outputs()[i], branch->outputs()[i]);
    }
  }
}

void Memory::read_loop(const jit::Node* node) {
  const jit::Block* body = node->blocks().at(0);
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    const jit::Value* output = node->outputs()[i];
    if (!has_memory(output)) continue;
    share(output, node->inputs()[i + 2]);
    share(output, body->inputs()[i + 1]);
    share(output, body->outputs()[i + 1]);
  }
}

// A task runs beside what comes behind it.
void Memory::read_task(const jit::Node* node) {
  const std::shared_ptr<jit::Graph>& task = node->g(jit::attr::Subgraph);
  expose(node->inputs());
  expose(node->outputs());
  expose(std::as_const(*task).inputs());
  expose(std::as_const(*task).outputs());
  read(task->block());
}

void Memory::read_writes(const jit::Node* node) {
  const c10::FunctionSchema* schema = node->maybeSchema();
  const bool calls = node->kind() == jit::prim::CallMethod || node->kind() == jit::prim::CallFunction;
  const bool known = tells_what_it_writes(node) && !calls;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    const jit::Value* input = node->inputs()[i];
    if (!has_memory(input)) continue;
    const c10::AliasInfo* alias =
        schema != nullptr && i < schema->arguments().size() ? schema->arguments()[i].alias_info() : nullptr;
    const bool writes = (alias != nullptr && alias->isWrite()) || !known || writes_statistics(node, input);
    if (!writes) continue;
    const bool into_elements = alias != nullptr && !alias->containedTypes().empty() && alias->containedTypes()[0].isWrite();
    if (may_be_tensor(input) || into_elements || !known) class_of(input).writers.push_back(node);
    if (!may_be_tensor(input)) class_of(input).container_writers.push_back(node);
  }
}

// Whatever `node` makes may be, or hold, whatever it reads; what it writes into may hold that, too.
void Memory::share_all(const jit::Node* node) {
  const auto inputs = node->inputs();
  const bool makes = std::any_of(node->outputs().begin(), node->outputs().end(), has_memory);
  const bool writes =
      std::any_of(inputs.begin(), inputs.end(), [&](const jit::Value* input) { return writes_into(node, input); });
  if (!makes && !writes) return;
  if (reads_metadata_only(jit::Use(const_cast<jit::Node*>(node), 0))) return;
  const jit::Value* first = nullptr;
  const auto join = [&](at::ArrayRef<const jit::Value*> values) {
    for (const jit::Value* value : values) {
      if (!has_memory(value)) continue;
      if (first != nullptr) share(value, first);
      first = value;
    }
  };
  join(inputs);
  join(node->outputs());
}

void Memory::expose(at::ArrayRef<const jit::Value*> values) {
  for (const jit::Value* value : values) {
    if (has_memory(value)) share(value, &kOutside);
  }
}

void Memory::share(const jit::Value* value, const jit::Value* other) {
  class_of(other);
  share(value, static_cast<const void*>(other));
}

void Memory::share(const jit::Value* value, const void* part) {
  class_of(value);
  const void* kept = root(part);
  const void* joined = root(value);
  if (kept == joined) return;
  parent_[joined] = kept;
  Class smaller = std::move(classes_[joined]);
  classes_.erase(joined);
  Class& whole = classes_[kept];
  if (whole.members.size() < smaller.members.size()) std::swap(whole.members, smaller.members);
  whole.members.insert(whole.members.end(), smaller.members.begin(), smaller.members.end());
  whole.writers.insert(whole.writers.end(), smaller.writers.begin(), smaller.writers.end());
  whole.container_writers.insert(whole.container_writers.end(), smaller.container_writers.begin(),
                                 smaller.container_writers.end());
  whole.is_leaf |= smaller.is_leaf;
}

Memory::Class& Memory::class_of(const jit::Value* value) {
  const bool is_new = parent_.emplace(value, value).second || gone_.erase(value) != 0;
  Class& found = classes_[root(value)];
  if (is_new) found.members.push_back(value);
  return found;
}

const void* Memory::root(const void* one) const {
  for (auto found = parent_.find(one); found != parent_.end() && found->second != one; found = parent_.find(one)) {
    one = found->second;
  }
  return one;
}

const Memory::Class* Memory::find(const void* one) const {
  const auto found = classes_.find(root(one));
  return found == classes_.end() ? nullptr : &found->second;
}

const std::vector<const jit::Node*>& Memory::writers_of(const jit::Value* value) const {
  static const std::vector<const jit::Node*> none;
  const Class* shared = find(value);
  if (shared == nullptr) return none;
  return may_be_tensor(value) ? shared->writers : shared->container_writers;
}

std::vector<const jit::Value*> Memory::sharing(const jit::Value* value) const {
  const Class* shared = find(value);
  return shared == nullptr ? std::vector<const jit::Value*>{value} : shared->members;
}

bool Memory::read_the_same(const jit::Value* value, const jit::Node* one, const jit::Node* other) const {
  const std::vector<const jit::Node*>& writers = writers_of(value);
  return std::all_of(writers.begin(), writers.end(), [&](const jit::Node* writer) {
    const bool again = is_in_loop_behind(writer, value->node());  // and before the next round
    const bool beside = writer->owningGraph() != one->owningGraph();
    return !again && !beside && writer->isBefore(one) == writer->isBefore(other) && writer != one && writer != other;
  });
}

bool Memory::is_private(const jit::Value* value) const {
  const Class* shared = find(value);
  return shared == nullptr || (!shared->is_leaf && root(value) != root(&kOutside));
}

bool Memory::may_be_overwritten(const jit::Value* value, const jit::Node* node) const {
  const jit::Node* maker = maker_of(value);
  if (maker == nullptr || is_in_loop_behind(node, maker)) return false;
  const auto is_harmless = [&](const jit::Value* other, const jit::Use& use) {
    if (use.user == node || reads_metadata_only(use)) return true;
    if (use.user->kind() == jit::prim::Return && is_below(use.user, maker)) return true;  // it becomes what is asked about
    if (use.user->isAfter(node)) return other == value;
    return !use.user->isBefore(node) || operator_of(use.user).storage != Storage::unknown || is_read_at_once(use.user);
  };
  const auto shared = sharing(value);
  return std::all_of(shared.begin(), shared.end(), [&](const jit::Value* other) {
    // What a task sees it was given by a node of this graph, which is among the readers.
    if (other->owningGraph() != node->owningGraph()) return true;
    const bool before = other->node() != maker && !other->node()->isAfter(maker) && !is_below(other->node(), maker);
    if (before || !other->node()->isBefore(node)) return true;  // another piece of memory, or read through `node`
    return std::all_of(other->uses().begin(), other->uses().end(), [&](const jit::Use& use) { return is_harmless(other, use); });
  });
}

void Memory::adopt(const jit::Value* value, const jit::Value* like) {
  share(value, like);
}

// A later value may get its address: that one is in the class, too, and among its members once it is told of.
void Memory::forget(const jit::Value* value) {
  auto& members = class_of(value).members;
  members.erase(std::remove(members.begin(), members.end(), value), members.end());
  gone_.insert(value);
}

std::optional<jit::Use> only_reader(const jit::Value* value) {
  std::optional<jit::Use> reader;
  for (const jit::Use& use : value->uses()) {
    if (reads_metadata_only(use)) continue;
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

jit::Node* only_concatenation(const jit::Node* list) {
  jit::Node* concatenation = nullptr;
  for (const jit::Use& use : list->output()->uses()) {
    const Shape shape = operator_of(use.user).shape;
    if (concatenation != nullptr || (shape != Shape::concatenation && shape != Shape::stacked)) return nullptr;
    concatenation = use.user;
  }
  return concatenation;
}

}  // namespace bnfold
