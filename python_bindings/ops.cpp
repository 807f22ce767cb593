// The operators torch.ops.bnfold.*, boxed: they take and return ScriptModules without a word of Python's or pybind11's API.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "bnfold/bnfold.h"
#include "bnfold/check.h"
#include "bnfold/exported.h"
#include "bnfold/files.h"
#include "bnfold/optimize.h"
#include "bnfold/pass.h"
#include "fold_batch_norms.h"
#include "freeze.h"
#include "module/plain_mode.h"

namespace {

using c10::OperatorHandle;
using torch::jit::Module;
using torch::jit::Stack;

Module module_from(const c10::IValue& value) {
  if (!value.isModule())
    throw bnfold::Error("the argument is no ScriptModule; make one with torch.jit.script or torch.jit.trace");
  return value.toModule();
}

std::vector<std::string> names_from(const c10::IValue& list) {
  std::vector<std::string> names;
  for (const c10::IValue& name : list.toListRef()) names.push_back(name.toStringRef());
  return names;
}

// fold(Any module) -> Any
void fold(const OperatorHandle&, Stack* stack) {
  const Module module = module_from(torch::jit::pop(*stack));
  torch::jit::push(*stack, bnfold::fold(module).module._ivalue());
}

// fold_with_report(Any module, str options_json) -> (Any, str)
void fold_with_report(const OperatorHandle&, Stack* stack) {
  const std::string options = torch::jit::pop(*stack).toStringRef();
  const Module module = module_from(torch::jit::pop(*stack));
  const bnfold::FoldResult result = bnfold::fold(module, bnfold::options_from_json(options));
  torch::jit::push(*stack, result.module._ivalue(), result.report.to_json());
}

// fold_on_inputs(Any module, str options_json, Any inputs) -> (Any, str), inputs a tuple of the arguments of forward
void fold_on_inputs(const OperatorHandle&, Stack* stack) {
  const c10::IValue inputs = torch::jit::pop(*stack);
  if (!inputs.isTuple()) throw bnfold::Error("the inputs must be a tuple of the arguments of forward");
  bnfold::Options options = bnfold::options_from_json(torch::jit::pop(*stack).toStringRef());
  options.example_inputs = inputs.toTupleRef().elements().vec();
  const Module module = module_from(torch::jit::pop(*stack));
  const bnfold::FoldResult result = bnfold::fold(module, options);
  torch::jit::push(*stack, result.module._ivalue(), result.report.to_json());
}

// fold_before_freezing(Any module, str[] preserved) -> (Any, str): the folded module, which torch.jit.freeze takes next, and its report
void fold_before_freezing(const OperatorHandle&, Stack* stack) {
  bnfold::Options options;
  options.preserved_attributes = names_from(torch::jit::pop(*stack));
  const Module module = module_from(torch::jit::pop(*stack));
  const bnfold::FoldResult result = bnfold::fold_before_freezing(module, options);
  torch::jit::push(*stack, result.module._ivalue(), result.report.to_json());
}

// freeze(Any module) -> Any
void freeze(const OperatorHandle&, Stack* stack) {
  const Module module = module_from(torch::jit::pop(*stack));
  torch::jit::push(*stack, bnfold::freeze(module).module._ivalue());
}

// fold_sums_and_products(Any module, str[] methods) -> (): of a frozen module, which changes
void fold_sums_and_products(const OperatorHandle&, Stack* stack) {
  const c10::List<c10::IValue> methods = torch::jit::pop(*stack).toList();
  const Module module = module_from(torch::jit::pop(*stack));
  for (const c10::IValue& method : methods) bnfold::fold_sums_and_products(module.get_method(method.toStringRef()).graph());
}

bnfold::Runtime runtime_of(const std::string& name) {
  if (name == "libtorch") return bnfold::Runtime::libtorch;
  if (name == "onednn") return bnfold::Runtime::onednn;
  throw bnfold::Error("there is no runtime '" + name + "': it is libtorch or onednn");
}

// optimize_for_inference(Any module, Any inputs, str[] preserved, str runtime) -> (Any, str), inputs a tuple of the arguments of forward, empty
// where there are none
void optimize_for_inference(const OperatorHandle&, Stack* stack) {
  const bnfold::Runtime runtime = runtime_of(torch::jit::pop(*stack).toStringRef());
  const std::vector<std::string> preserved = names_from(torch::jit::pop(*stack));
  const c10::IValue inputs = torch::jit::pop(*stack);
  if (!inputs.isTuple()) throw bnfold::Error("the inputs must be a tuple of the arguments of forward");
  const Module module = module_from(torch::jit::pop(*stack));
  const bnfold::PlainMode plain;
  const bnfold::OptimizeResult result =
      bnfold::optimize_for_inference(module, inputs.toTupleRef().elements().vec(), preserved, runtime);
  torch::jit::push(*stack, result.module._ivalue(), result.to_json());
}

// check(Any original, Any folded, Any inputs) -> (bool, float, float, str), inputs a tuple of tuples
void check(const OperatorHandle&, Stack* stack) {
  const c10::IValue inputs = torch::jit::pop(*stack);
  const Module folded = module_from(torch::jit::pop(*stack));
  const Module original = module_from(torch::jit::pop(*stack));
  if (!inputs.isTuple()) throw bnfold::Error("the inputs must be a tuple of tuples, one for each call of forward");
  std::vector<std::vector<c10::IValue>> tuples;
  tuples.reserve(inputs.toTupleRef().elements().size());
  for (const c10::IValue& tuple : inputs.toTupleRef().elements()) {
    if (!tuple.isTuple()) throw bnfold::Error("the inputs must be a tuple of tuples, one for each call of forward");
    tuples.push_back(tuple.toTupleRef().elements().vec());
  }
  const bnfold::CheckResult result = bnfold::check(original, folded, tuples);
  torch::jit::push(*stack, result.passed, result.largest_error, result.tolerance, result.worst_output);
}

// load(str path) -> Any
void load(const OperatorHandle&, Stack* stack) {
  const std::string path = torch::jit::pop(*stack).toStringRef();
  torch::jit::push(*stack, bnfold::load(path)._ivalue());
}

at::Device device_from(const std::string& name) {
  try {
    return {name};
  } catch (const c10::Error&) {
    throw bnfold::Error("there is no device '" + name + "'; name one as in cpu or cuda:0");
  }
}

// load_with_extra_files(str path, str? map_location) -> (Any, Dict(str, Tensor)); each file as a tensor of bytes, for a str is text
void load_with_extra_files(const OperatorHandle&, Stack* stack) {
  const c10::IValue map_location = torch::jit::pop(*stack);
  const std::string path = torch::jit::pop(*stack).toStringRef();
  std::optional<at::Device> device;
  if (!map_location.isNone()) device = device_from(map_location.toStringRef());
  bnfold::FileContent content;
  const Module module = bnfold::load(path, device, &content);
  const c10::Dict<std::string, at::Tensor> files;
  for (const auto& [name, text] : content.extra_files) {
    const at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::TensorOptions(at::kByte));
    std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
    files.insert(name, bytes);
  }
  torch::jit::push(*stack, module._ivalue(), files);
}

// save(Any module, str path) -> ()
void save(const OperatorHandle&, Stack* stack) {
  const std::string path = torch::jit::pop(*stack).toStringRef();
  bnfold::save(module_from(torch::jit::pop(*stack)), path);
}

// save_with_extra_files(Any module, str path, Dict(str, str) extra_files) -> ()
void save_with_extra_files(const OperatorHandle&, Stack* stack) {
  bnfold::ExtraFiles files;
  for (const auto& entry : torch::jit::pop(*stack).toGenericDict()) {
    files.emplace(entry.key().toStringRef(), entry.value().toStringRef());
  }
  const std::string path = torch::jit::pop(*stack).toStringRef();
  bnfold::save(module_from(torch::jit::pop(*stack)), path, files);
}

// fold_exported(str program, Dict(str, Tensor) tensors, str options_json) -> (str, Dict(str, Tensor), str)
void fold_exported(const OperatorHandle&, Stack* stack) {
  const std::string options = torch::jit::pop(*stack).toStringRef();
  const c10::IValue tensors = torch::jit::pop(*stack);
  bnfold::ExportedProgram program;
  program.json = torch::jit::pop(*stack).toStringRef();
  for (const auto& entry : tensors.toGenericDict()) program.tensors.emplace(entry.key().toStringRef(), entry.value().toTensor());
  const bnfold::ExportedFoldResult result = bnfold::fold(program, bnfold::options_from_json(options));
  const c10::Dict<std::string, at::Tensor> folded;
  for (const auto& [name, tensor] : result.program.tensors) folded.insert(name, tensor);
  torch::jit::push(*stack, result.program.json, folded, result.report.to_json());
}

// is_exported_file(str path) -> bool: raises where it is one and damaged
bool is_exported_file(const std::string& path) {
  if (!bnfold::is_exported_file(path)) return false;
  bnfold::load_exported(path);
  return true;
}

bool asks_for_pass() {
  const char* automatic = std::getenv("BNFOLD_AUTO");
  return automatic != nullptr && std::string_view(automatic) == "1";
}

}  // namespace

TORCH_LIBRARY(bnfold, library) {
  library.def("fold(Any module) -> Any", torch::CppFunction::makeFromBoxedFunction<&fold>());
  library.def("fold_with_report(Any module, str options_json) -> (Any, str)",
              torch::CppFunction::makeFromBoxedFunction<&fold_with_report>());
  library.def("fold_on_inputs(Any module, str options_json, Any inputs) -> (Any, str)",
              torch::CppFunction::makeFromBoxedFunction<&fold_on_inputs>());
  library.def("fold_before_freezing(Any module, str[] preserved) -> (Any, str)",
              torch::CppFunction::makeFromBoxedFunction<&fold_before_freezing>());
  library.def("freeze(Any module) -> Any", torch::CppFunction::makeFromBoxedFunction<&freeze>());
  library.def("fold_sums_and_products(Any module, str[] methods) -> ()",
              torch::CppFunction::makeFromBoxedFunction<&fold_sums_and_products>());
  library.def("optimize_for_inference(Any module, Any inputs, str[] preserved, str runtime=\"libtorch\") -> (Any, str)",
              torch::CppFunction::makeFromBoxedFunction<&optimize_for_inference>());
  library.def("register_pass() -> ()", &bnfold::register_pass);
  library.def("unregister_pass() -> ()", &bnfold::unregister_pass);
  library.def("pass_is_registered() -> bool", &bnfold::pass_is_registered);
  library.def("check(Any original, Any folded, Any inputs) -> (bool, float, float, str)",
              torch::CppFunction::makeFromBoxedFunction<&check>());
  library.def("version() -> str", [] { return std::string(BNFOLD_VERSION); });
  library.def("load(str path) -> Any", torch::CppFunction::makeFromBoxedFunction<&load>());
  library.def("save(Any module, str path) -> ()", torch::CppFunction::makeFromBoxedFunction<&save>());
  library.def("load_with_extra_files(str path, str? map_location) -> (Any, Dict(str, Tensor))",
              torch::CppFunction::makeFromBoxedFunction<&load_with_extra_files>());
  library.def("save_with_extra_files(Any module, str path, Dict(str, str) extra_files) -> ()",
              torch::CppFunction::makeFromBoxedFunction<&save_with_extra_files>());
  library.def("fold_exported(str program, Dict(str, Tensor) tensors, str options_json) -> (str, Dict(str, Tensor), str)",
              torch::CppFunction::makeFromBoxedFunction<&fold_exported>());
  library.def("is_exported_file(str path) -> bool", &is_exported_file);
  if (asks_for_pass()) bnfold::register_pass();
}
