#include "module/flatten.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/constant_pooling.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/loop_unrolling.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/csrc/jit/passes/peephole_alias_sensitive.h>

#include <algorithm>
#include <unordered_set>

#include "graph/changed_lists.h"
#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/module_places.h"
#include "graph/operators.h"
#include "graph/tuple_results.h"
#include "module/convolution_ranks.h"
#include "module/fixed_values.h"
#include "module/hidden_writes.h"
#include "report/sentence.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Adds the methods that `graph` calls on the module it belongs to, in tasks too.
void collect_called(const jit::Graph& graph, std::unordered_set<std::string>& called) {
  std::unordered_set<const jit::Value*> selves{graph.inputs().at(0)};
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](const jit::Node* node) {
    if (node->kind() == jit::prim::CallMethod && selves.count(node->input(0)) != 0) called.insert(node->s(jit::attr::name));
    if (node->kind() != jit::prim::fork) return;
    const auto& task = node->g(jit::attr::Subgraph);
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      if (selves.count(node->input(i)) != 0) selves.insert(task->inputs().at(i));
    }
  });
}

// The methods that no other method of the module calls: forward, and what @torch.jit.export made public.
std::vector<std::string> entry_points(const jit::Module& module) {
  std::unordered_set<std::string> called;
  for (const jit::Method& method : module.get_methods()) collect_called(*method.graph(), called);
  std::vector<std::string> names;
  for (const jit::Method& method : module.get_methods()) {
    const bool special = method.name().rfind("__", 0) == 0;
    if (!special && (method.name() == "forward" || called.count(method.name()) == 0)) names.push_back(method.name());
  }
  return names;
}

void require_known(const jit::Module& module, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (module.find_method(name)) continue;
    if (!module.hasattr(name)) throw Error(fmt::format("the module has no attribute '{}' to preserve", name));
    if (module.attr(name).isModule()) {
      throw Error(fmt::format("'{}' is a submodule, and only methods and values can be preserved; fold it by itself", name));
    }
  }
}

// A flattened method is called without them, which would change what the module computes.
void require_no_hooks(const jit::Module& module) {
  if (module.type()->getForwardHooks().empty() && module.type()->getForwardPreHooks().empty()) return;
  throw Error(
      "the module has forward hooks, which are not folded; call what they do in forward, or remove them before scripting");
}

std::vector<std::shared_ptr<jit::Graph>> forked_graphs(const jit::Graph& graph) {
  std::vector<std::shared_ptr<jit::Graph>> graphs;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](const jit::Node* node) {
    if (node->kind() == jit::prim::fork) graphs.push_back(node->g(jit::attr::Subgraph));
  });
  return graphs;
}

// A submodule behind an interface is one certain submodule; its own type lets the calls of its methods be inlined. Returns whether there
// was one.
bool resolve_interfaces(const jit::Graph& graph, const jit::Module& module) {
  ModulePlaces places;
  places.record(graph, module);
  bool found = false;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&](jit::Node* node) {
    const bool fork = node->kind() == jit::prim::fork;
    for (jit::Value* value : fork ? node->g(jit::attr::Subgraph)->inputs() : node->outputs()) {
      const ModulePlaces::Place* place = places.find(value);
      if (place == nullptr || value->type()->kind() != c10::TypeKind::InterfaceType) continue;
      value->setType(place->module.type());
      found = true;
    }
  });
  return found;
}

size_t number_of_nodes(const jit::Graph& graph) {
  size_t number = 0;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&number](const jit::Node* /*node*/) { ++number; });
  return number;
}

// What LibTorch inlines may hold calls itself, where it keeps a function that was compiled without inlining; and it may bring forks along.
void inline_with_forks(jit::Graph& graph) {
  size_t before = 0;
  do {
    before = number_of_nodes(graph);
    jit::Inline(graph);
  } while (number_of_nodes(graph) != before);
  for (const auto& forked : forked_graphs(graph)) inline_with_forks(*forked);
}

void inline_calls(jit::Graph& graph, const jit::Module& module) {
  do inline_with_forks(graph);
  while (resolve_interfaces(graph, module));
}

bool is_constant(const jit::Value* value) {
  return value->node()->kind() == jit::prim::Constant;
}

// Whether constants decide it, or what is computed from nothing but constants.
bool is_decided_branch(const jit::Node* node) {
  if (node->kind() != jit::prim::If) return false;
  const auto operands = node->input()->node()->inputs();
  return is_constant(node->input()) || (!operands.empty() && std::all_of(operands.begin(), operands.end(), is_constant));
}

// Whether it is a loop of a constant number of rounds, which can be unrolled.
bool is_counted_loop(const jit::Node* node) {
  return node->kind() == jit::prim::Loop && is_constant(node->input(0)) && is_constant(node->input(1));
}

// Whether query is key: one value is itself.
void decide_identities(jit::Graph& graph) {
  std::vector<jit::Node*> decided;
  for_each_node(graph.block(), [&decided](jit::Node* node) {
    const bool asks = node->kind() == jit::aten::__is__ || node->kind() == jit::aten::__isnot__;
    if (asks && node->input(0) == node->input(1)) decided.push_back(node);
  });
  for (jit::Node* node : decided) {
    const jit::WithInsertPoint before(node);
    node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(node->kind() == jit::aten::__is__));
    node->destroy();
  }
}

// Whether it returns its input itself: dropout that does not train, and as_tensor that is asked for nothing else.
bool is_idle(const jit::Node* node) {
  if (is_dropout(node)) return constant_bool(node->namedInput("train")) == false;
  return is_one_of(node, {"as_tensor"}) && is_tensor(node->input(0)) && is_left_out(node, "dtype") && is_left_out(node, "device");
}

// What is written into such an output is written into the input. EliminateDeadCode takes dropout for a copy, and drops what nobody seems to
// read.
void remove_idle_operators(jit::Graph& graph) {
  std::vector<jit::Node*> idle;
  for_each_node(graph.block(), [&idle](jit::Node* node) {
    if (is_idle(node)) idle.push_back(node);
  });
  for (jit::Node* node : idle) {
    node->output()->replaceAllUsesWith(node->input(0));
    node->destroy();
  }
}

// Whether it calls a method that @torch.jit.ignore left to Python, which needs the module that came in.
bool calls_python_with_module(const jit::Graph& graph) {
  return any_node(graph, [](const jit::Node* node) {
    const auto inputs = node->inputs();
    return node->kind() == jit::prim::PythonOp &&
           std::any_of(inputs.begin(), inputs.end(), [](const jit::Value* input) { return input->type()->is_module(); });
  });
}

// Such methods are in no file, so whoever does not ask for one does without it.
void drop_methods_of_python(Program& program, const std::vector<std::string>& asked) {
  const auto is_dropped = [&asked](const Program::Method& method) {
    const bool needed = method.name == "forward" || std::find(asked.begin(), asked.end(), method.name) != asked.end();
    return !needed && calls_python_with_module(*method.graph);
  };
  auto& methods = program.methods;
  methods.erase(std::remove_if(methods.begin(), methods.end(), is_dropped), methods.end());
}

// Takes the branches and loops that the constants decide, and lists and tuples that are only passed on.
void simplify(std::shared_ptr<jit::Graph>& graph) {
  const auto is_decided = [](const jit::Node* node) { return is_decided_branch(node) || is_counted_loop(node); };
  bool spelled_out = false;
  size_t before = 0;
  do {
    before = number_of_nodes(*graph);
    jit::ConstantPropagation(graph, /*ignore_custom_classes=*/true);
    const bool unrolled = jit::UnrollConstantLoops(graph);
    append_one_by_one(*graph);
    if (contains(*graph, jit::prim::TupleConstruct)) {
      split_tuple_results(*graph);
      jit::LowerSimpleTuples(graph);
    }
    spelled_out = spell_out_changed_lists(*graph);
    if (unrolled || spelled_out) jit::ConstantPropagation(graph, /*ignore_custom_classes=*/true);
    ask_ranks_before_convolutions(*graph);
    jit::PeepholeOptimize(graph, /*disable_shape_peepholes=*/true);
  } while (spelled_out || (number_of_nodes(*graph) != before && any_node(*graph, is_decided)));
  // A loop that does nothing is dead where its conditions, before it and at its end, are one constant; left empty it can't be written.
  if (contains(*graph, jit::prim::Loop)) jit::ConstantPooling(graph);
  jit::EliminateDeadCode(graph);
}

}  // namespace

Program flatten(const jit::Module& module, const Options& options) {
  require_known(module, options.preserved_attributes);
  require_no_hooks(module);
  std::vector<std::string> preserved = options.preserved_attributes.empty() ? entry_points(module) : options.preserved_attributes;
  if (module.find_method("forward")) preserved.emplace_back("forward");
  Program program{module, {}, {}};
  std::unordered_set<std::string> seen;
  try {
    for (const std::string& name : preserved) {
      if (!seen.insert(name).second) continue;
      if (const auto method = module.find_method(name)) {
        program.methods.push_back({name, jit::toGraphFunction(method->function()).graph()->copy()});
        inline_calls(*program.methods.back().graph, module);
        // As the executor does with the module that came in: what that decides of ranks behind convolutions, and no more.
        jit::PeepholeOptimizeAliasSensitive(program.methods.back().graph, /*shape_peepholes=*/false);
      } else {
        program.preserved_values.push_back(name);
      }
    }
    make_constants_of_fixed_values(program);
    for (Program::Method& method : program.methods) {
      remove_idle_operators(*method.graph);
      decide_identities(*method.graph);
      guard_hidden_writes(*method.graph);
      for (auto& forked : forked_graphs(*method.graph)) simplify(forked);
      simplify(method.graph);
      release_hidden_writes(*method.graph);
    }
    drop_methods_of_python(program, options.preserved_attributes);
  } catch (const c10::Error& error) {
    throw Error(fmt::format("TorchScript can't flatten this module: {}", first_sentence(error.what_without_backtrace())));
  }
  return program;
}

}  // namespace bnfold
