// The program bnfold: folds a .pt or .pt2 file into another.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bnfold/bnfold.h"
#include "bnfold/check.h"
#include "bnfold/exported.h"
#include "bnfold/files.h"
#include "bnfold/graphviz.h"
#include "explanation.h"
#include "failure.h"
#include "inputs.h"
#include "latency_report.h"
#include "libraries.h"
#include "picture.h"
#include "terminal.h"
#include "text.h"

namespace {

// IN, and what is written into OUT beside the module.
struct Loaded {
  torch::jit::Module module;
  bnfold::FileContent content;
  std::optional<at::Device> device;  // where all of it was loaded onto one
};

Loaded load_module(const Arguments& arguments) {
  std::optional<at::Device> device = arguments.device;
  if (!device && !at::hasCUDA()) device = at::kCPU;
  bnfold::FileContent content;
  torch::jit::Module module = bnfold::load(arguments.in, device, &content);
  return {module, std::move(content), device};
}

Loaded loaded(const Arguments& arguments) {
  for (const std::string& library : arguments.libraries) load_library(library);
  try {
    try {
      return load_module(arguments);
    } catch (const bnfold::LoadError& error) {
      if (std::string(error.what()).find("torchvision::") == std::string::npos || !load_torchvision()) throw;
      return load_module(arguments);
    }
  } catch (const bnfold::LoadError& error) {
    throw Failure(kCannotLoad, error.what());
  }
}

std::vector<c10::IValue> made_inputs(const torch::jit::Module& module, const Arguments& arguments, int number) {
  try {
    return random_inputs(module, arguments.inputs, number);
  } catch (const c10::Error& error) {
    throw Failure(kUsage, fmt::format("the input can't be made: {}", first_line(error.what_without_backtrace())));
  }
}

bnfold::FoldResult folded(const torch::jit::Module& module, const Arguments& arguments) {
  bnfold::Options options;
  options.preserved_attributes = arguments.preserved;
  options.target = arguments.target;
  options.fold_limit = arguments.fold_limit;
  options.example_inputs = made_inputs(module, arguments, 0);
  try {
    return bnfold::fold(module, options);
  } catch (const bnfold::InputError& error) {
    throw Failure(kUsage, error.what());
  } catch (const bnfold::Error& error) {
    throw Failure(kCannotLoad, fmt::format("{}: {}", arguments.in, error.what()));
  }
}

bnfold::CheckResult checked(const torch::jit::Module& original, const torch::jit::Module& result, const Arguments& arguments,
                            Progress& progress) {
  const int count = std::max(arguments.check, 1);
  const auto make_inputs = [&](int number) {
    progress.show(fmt::format("checking on input {} of {}", number + 1, count));
    return made_inputs(original, arguments, number);
  };
  try {
    return bnfold::check(original, result, count, make_inputs);
  } catch (const bnfold::InputError& error) {
    throw Failure(kUsage, error.what());
  } catch (const bnfold::Error& error) {
    throw Failure(kCheckFailed, error.what());
  }
}

nlohmann::ordered_json measured(const torch::jit::Module& original, const torch::jit::Module& result, const Arguments& arguments,
                                Progress& progress) {
  progress.show("freezing and optimizing what folded is compared with");
  const auto show_run = [&](int run) { progress.show(fmt::format("measuring, run {} of {}", run + 1, arguments.bench)); };
  return latency_report(original, result, made_inputs(original, arguments, 0), arguments.bench, show_run);
}

// What torch.jit.freeze keeps beside forward.
std::vector<std::string> preserved(const Arguments& arguments) {
  std::vector<std::string> names = arguments.preserved;
  names.erase(std::remove(names.begin(), names.end(), "forward"), names.end());
  return names;
}

// Nothing where the module is on the devices that it was saved from.
std::string device_line(const Loaded& in) {
  const std::string& stored = in.content.devices;
  if (!in.device || stored.empty() || stored == in.device->str()) return "";
  return fmt::format("{:<12} saved from {}, loaded onto {}\n", "device", stored, in.device->str());
}

std::string check_line(const bnfold::CheckResult& check) {
  return fmt::format("{:<12} {:>14}  of  {:>14}   on {} random input{}, relative to the largest output\n", "error",
                     fmt::format("{:.1e}", check.largest_error), fmt::format("{:.0e} allowed", check.tolerance), check.inputs,
                     check.inputs == 1 ? "" : "s");
}

nlohmann::ordered_json as_json(const bnfold::CheckResult& check) {
  return {{"passed", check.passed},
          {"inputs", check.inputs},
          {"largest_error", check.largest_error},
          {"tolerance", check.tolerance},
          {"worst_output", check.worst_output}};
}

// Prints the report for a person, and returns the error number, 0 where all is well.
int print(const Arguments& arguments, const bnfold::Report& report, const std::string& extra_lines) {
  if (arguments.json == "-") return 0;
  const std::string text =
      report.to_table(columns(), shows_colors(stdout)) + extra_lines + (arguments.explain ? explanation(report) : "");
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0 ? 0 : errno;
}

// What a fold gave, and what is left to do with it.
struct Outcome {
  const bnfold::Report& report;
  nlohmann::ordered_json json;
  std::string lines;  // behind the table
  bool passed;        // the check
  std::function<std::string()> picture;
  std::function<void()> save;
};

void deliver(const Arguments& arguments, const Outcome& outcome, Progress& progress) {
  progress.clear();
  const int print_error = print(arguments, outcome.report, outcome.lines);
  if (!arguments.json.empty()) write_text(arguments.json, "report", outcome.json.dump(2) + "\n");
  if (!arguments.plot.empty()) {
    progress.show(fmt::format("drawing {}", arguments.plot));
    write_text(arguments.plot, "picture", picture_of(outcome.picture(), arguments.plot));
  }
  if (!outcome.passed)
    throw Failure(kCheckFailed, "the folded module differs from the original by more than rounding; nothing was written");
  if (arguments.strict && !outcome.report.kept.empty()) {
    throw Failure(kNormKept,
                  fmt::format("norms were kept ({}) and --strict is on; nothing was written", outcome.report.kept.size()));
  }
  progress.show(fmt::format("writing {}", arguments.out));
  try {
    outcome.save();
  } catch (const bnfold::Error& error) {
    throw Failure(kCannotWrite, error.what());
  }
  if (print_error != 0) {
    throw Failure(kCannotWrite, fmt::format("the report can't be printed: {}; OUT is written", std::strerror(print_error)));
  }
}

// Of a program that torch.export wrote, which LibTorch can't run.
void require_no_run(const Arguments& arguments) {
  const auto require_none = [](const char* option, bool is_given, const char* instead) {
    if (is_given) throw Failure(kUsage, fmt::format("{} is for TorchScript files; {}", option, instead));
  };
  require_none("--check", arguments.check > 0,
               "LibTorch can't run a .pt2 file: bnfold.fold in Python compares on example inputs");
  require_none("--bench", arguments.bench > 0, "LibTorch can't run a .pt2 file");
  require_none("--input", !arguments.inputs.empty(), "a .pt2 file tells the ranks of its inputs itself");
  require_none("--preserve", !arguments.preserved.empty(), "a .pt2 file has one method");
  require_none("--device", arguments.device.has_value(), "a .pt2 file stays on its device");
  require_none("--frozen", arguments.frozen, "compile OUT with AOTInductor instead");
}

void require_inputs(const Arguments& arguments) {
  if ((arguments.check > 0 || arguments.bench > 0) && arguments.inputs.empty()) {
    throw Failure(kUsage, "--check and --bench need to know what to run on; give --input, as in --input 1,3,224,224");
  }
}

bool is_exported(const Arguments& arguments) {
  try {
    return bnfold::is_exported_file(arguments.in);
  } catch (const bnfold::LoadError& error) {
    throw Failure(kCannotLoad, error.what());
  }
}

void run_exported(const Arguments& arguments) {
  require_no_run(arguments);
  for (const std::string& library : arguments.libraries) load_library(library);
  Progress progress;
  progress.show(fmt::format("folding {}", arguments.in));
  const auto [program, result] = [&arguments] {
    try {
      const bnfold::ExportedProgram loaded = bnfold::load_exported(arguments.in);
      bnfold::Options options;
      options.target = arguments.target;
      options.fold_limit = arguments.fold_limit;
      return std::pair(loaded, bnfold::fold(loaded, options));
    } catch (const bnfold::LoadError& error) {
      throw Failure(kCannotLoad, error.what());
    } catch (const bnfold::Error& error) {
      throw Failure(kCannotLoad, fmt::format("{}: {}", arguments.in, error.what()));
    }
  }();
  const bnfold::ExportedProgram& original = program;
  const bnfold::ExportedFoldResult& folded = result;
  deliver(arguments,
          {folded.report, nlohmann::ordered_json::parse(folded.report.to_json()), "", /*passed=*/true,
           [&] { return bnfold::to_graphviz(original, folded); }, [&] { bnfold::save(folded.program, arguments.out); }},
          progress);
}

void run(const Arguments& arguments) {
  if (is_exported(arguments)) return run_exported(arguments);
  require_inputs(arguments);
  Progress progress;
  progress.show(fmt::format("loading {}", arguments.in));
  const Loaded in = loaded(arguments);
  const torch::jit::Module& module = in.module;
  progress.show(fmt::format("folding {}", arguments.in));
  bnfold::FoldResult result = folded(module, arguments);
  const torch::jit::Module folded_module = result.module;
  // Without torch's own folds, which take a norm into a linear layer whatever the rank: what could be folded exactly is folded.
  if (arguments.frozen) result.module = torch::jit::freeze(result.module, preserved(arguments), /*optimize_numerics=*/false);
  auto json = nlohmann::ordered_json::parse(result.report.to_json());
  std::string lines = device_line(in);
  bool passed = true;
  if (arguments.check > 0 || arguments.bench > 0) {
    const bnfold::CheckResult check = checked(module, result.module, arguments, progress);
    passed = check.passed;
    lines += check_line(check);
    json["check"] = as_json(check);
  }
  if (arguments.bench > 0 && passed) {
    json["latency"] = measured(module, folded_module, arguments, progress);
    lines += latency_table(json["latency"]);
  }
  deliver(arguments,
          {result.report, std::move(json), std::move(lines), passed, [&] { return bnfold::to_graphviz(module, result); },
           [&] { bnfold::save(result.module, arguments.out, in.content.extra_files); }},
          progress);
}

// Unlike fmt::print, it does not throw where nobody can be told.
void complain(const std::string& what) {
  std::fputs(fmt::format("bnfold: {}\n", first_line(what)).c_str(), stderr);
}

// A file that is opened later must not get the number of a standard stream: what is printed would go into it. Where nobody reads what is
// printed, or a file may not grow, the error of the call has a sentence, a signal has none.
void make_failures_of_streams_errors() {
  for (int descriptor = open("/dev/null", O_RDONLY); descriptor >= 0; descriptor = dup(descriptor)) {
    if (descriptor <= STDERR_FILENO) continue;
    close(descriptor);
    break;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Removes batch normalization from a TorchScript module or an exported program, exactly.", "bnfold");
  Arguments arguments;
  make_failures_of_streams_errors();
  describe(app, arguments);
  try {
    app.parse(argc, argv);
    complete(arguments);
    run(arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  } catch (const Failure& failure) {
    complain(failure.what());
    return failure.exit_code;
  } catch (const c10::Error& error) {
    complain(error.what_without_backtrace());
    return kCannotLoad;
  } catch (const std::exception& error) {
    complain(error.what());
    return kCannotLoad;
  }
  return kDone;
}
