// The program bnfold: folds a .pt file into another.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "bnfold/bnfold.h"
#include "bnfold/check.h"
#include "bnfold/files.h"
#include "inputs.h"
#include "latency_report.h"
#include "text.h"

namespace {

// What the program promises to scripts.
enum ExitCode { kDone = 0, kCheckFailed = 1, kUsage = 2, kCannotLoad = 3, kNormKept = 4, kCannotWrite = 5 };

constexpr int kMostRuns = 1000000;

struct Arguments {
  std::string in;
  std::string out;
  std::vector<InputShape> inputs;
  int check = 0;
  int bench = 0;
  bool frozen = false;
  bool strict = false;
  bool explain = false;
  std::string json;
};

// A failure that ends the program with its exit code.
struct Failure : std::runtime_error {
  Failure(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), exit_code(code) {}
  ExitCode exit_code;
};

void describe(CLI::App& app, Arguments& arguments, std::vector<std::string>& inputs) {
  app.set_version_flag("--version", std::string("bnfold ") + BNFOLD_VERSION);
  app.add_option("IN", arguments.in, "TorchScript file to read, a module in eval mode")->required();
  app.add_option("OUT", arguments.out, "TorchScript file to write; written beside and renamed")->required();
  app.add_option("--input", inputs,
                 "sizes of an argument of forward, and its dtype: 1,3,224,224 or 1,3,224,224:half; once for each")
      ->allow_extra_args(false)
      ->type_name("SIZES[:DTYPE]");
  app.add_option("--check", arguments.check, "compare folded and original on N random inputs before writing")
      ->type_name("N")
      ->check(CLI::Range(1, kMostRuns));
  app.add_option("--bench", arguments.bench,
                 "measure original, frozen and folded, N runs each in turn, and print the medians; checks first")
      ->type_name("N")
      ->check(CLI::Range(1, kMostRuns));
  app.add_flag("--frozen", arguments.frozen, "write the result of torch.jit.freeze on the folded module");
  app.add_flag("--strict", arguments.strict, "write nothing and exit with 4 where a norm was kept");
  app.add_flag("--explain", arguments.explain, "list where each norm went, and what the reasons for keeping one mean");
  app.add_option("--json", arguments.json, "write the report as JSON, - for standard output")->type_name("FILE");
  app.footer(
      "Examples:\n"
      "  bnfold resnet50.pt folded.pt\n"
      "  bnfold resnet50.pt folded.pt --input 1,3,224,224 --check 10 --bench 50\n"
      "  bnfold encoder.pt folded.pt --input 8,128:long --input 8,128:bool --check 3 --strict\n\n"
      "Exit codes: 0 done, 1 the check failed and nothing was written, 2 wrong usage, 3 IN can't be loaded or folded,\n"
      "4 --strict and a norm was kept, nothing written, 5 OUT or the report can't be written.");
}

bool is_one_file(const std::string& one, const std::string& other) {
  std::error_code error;
  const auto resolved = [&error](const std::string& path) { return std::filesystem::weakly_canonical(path, error); };
  return resolved(one) == resolved(other);
}

void finish(Arguments& arguments, const std::vector<std::string>& inputs) {
  for (const std::string& text : inputs) {
    try {
      arguments.inputs.push_back(input_shape(text));
    } catch (const std::invalid_argument& error) {
      throw Failure(kUsage, error.what());
    }
  }
  if ((arguments.check > 0 || arguments.bench > 0) && arguments.inputs.empty()) {
    throw Failure(kUsage, "--check and --bench need to know what to run on; give --input, as in --input 1,3,224,224");
  }
  for (const std::string& module : {arguments.in, arguments.out}) {
    if (!arguments.json.empty() && is_one_file(arguments.json, module)) {
      throw Failure(kUsage, fmt::format("--json would write the report onto {}, which is a module", module));
    }
  }
}

bnfold::FoldResult folded(const torch::jit::Module& module, const Arguments& arguments) {
  bnfold::Options options;
  for (const InputShape& shape : arguments.inputs) options.input_ranks.emplace_back(static_cast<int64_t>(shape.sizes.size()));
  try {
    return bnfold::fold(module, options);
  } catch (const bnfold::Error& error) {
    throw Failure(kCannotLoad, fmt::format("{}: {}", arguments.in, error.what()));
  }
}

bnfold::CheckResult checked(const torch::jit::Module& original, const torch::jit::Module& result, const Arguments& arguments) {
  try {
    return bnfold::check(original, result, std::max(arguments.check, 1),
                         [&](int seed) { return random_inputs(original, arguments.inputs, seed); });
  } catch (const bnfold::InputError& error) {
    throw Failure(kUsage, error.what());
  } catch (const bnfold::Error& error) {
    throw Failure(kCheckFailed, error.what());
  } catch (const c10::Error& error) {
    throw Failure(kUsage, fmt::format("the input can't be made: {}", first_line(error.what_without_backtrace())));
  }
}

std::string way_of(const bnfold::Obstacle& obstacle) {
  const std::string past = obstacle.passed.empty() ? "" : fmt::format("past {}, ", fmt::join(obstacle.passed, ", "));
  const std::string where = obstacle.source.empty() ? "" : fmt::format(" ({})", obstacle.source);
  return fmt::format("    {}: {}stopped by {}{}\n      {}\n", obstacle.way, past, name(obstacle.reason), where, obstacle.detail);
}

// What the table leaves out: where each folded norm went, what was tried with each kept one, and what the reasons mean.
std::string explained(const bnfold::Report& report) {
  std::string text = report.folded.empty() ? "" : "\nfolded\n";
  for (const bnfold::FoldedNorm& norm : report.folded) {
    text += fmt::format("  {}  {} into {}\n", norm.name, name(norm.direction), norm.into);
  }
  std::set<bnfold::Reason> reasons;
  text += report.kept.empty() ? "" : "\ntried\n";
  for (const bnfold::KeptNorm& norm : report.kept) {
    text += fmt::format("  {}\n", norm.name);
    for (const bnfold::Obstacle& obstacle : norm.obstacles) {
      text += way_of(obstacle);
      reasons.insert(obstacle.reason);
    }
  }
  text += reasons.empty() ? "" : "\nreasons\n";
  for (const bnfold::Reason reason : reasons) text += fmt::format("  {}\n      {}\n", name(reason), sentence(reason));
  return text;
}

// Prints the report for a person, and returns the error number, 0 where all is well.
int print(const Arguments& arguments, const bnfold::Report& report, const std::string& extra_lines) {
  if (arguments.json == "-") return 0;
  const std::string text = report.to_table() + extra_lines + (arguments.explain ? explained(report) : "");
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0 ? 0 : errno;
}

void write_json(const Arguments& arguments, const nlohmann::ordered_json& json) {
  if (arguments.json.empty()) return;
  const std::string text = json.dump(2) + "\n";
  errno = 0;
  std::FILE* file = arguments.json == "-" ? stdout : std::fopen(arguments.json.c_str(), "w");
  const bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file == nullptr || (file == stdout ? std::fflush(file) : std::fclose(file)) == 0;
  if (!written || !closed) {
    throw Failure(kCannotWrite, fmt::format("{}: the report can't be written: {}", arguments.json, std::strerror(errno)));
  }
}

std::string check_line(const bnfold::CheckResult& check) {
  return fmt::format("{:<12} {:>14}  of  {:>14}   on {} random inputs, relative to the largest output\n", "error",
                     fmt::format("{:.1e}", check.largest_error), fmt::format("{:.0e} allowed", check.tolerance), check.inputs);
}

void save(const torch::jit::Module& module, const Arguments& arguments) {
  try {
    bnfold::save(module, arguments.out);
  } catch (const bnfold::Error& error) {
    throw Failure(kCannotWrite, error.what());
  }
}

void run(const Arguments& arguments) {
  torch::jit::Module module;
  try {
    module = bnfold::load(arguments.in, /*onto_cpu=*/!at::hasCUDA());
  } catch (const bnfold::LoadError& error) {
    throw Failure(kCannotLoad, error.what());
  }
  bnfold::FoldResult result = folded(module, arguments);
  const torch::jit::Module folded_module = result.module;
  // Without torch's own folds, which take a norm into a linear layer whatever the rank: what could be folded exactly is folded.
  if (arguments.frozen) result.module = torch::jit::freeze(result.module, c10::nullopt, /*optimize_numerics=*/false);
  auto json = nlohmann::ordered_json::parse(result.report.to_json());
  std::string lines;
  bool passed = true;
  if (arguments.check > 0 || arguments.bench > 0) {
    const bnfold::CheckResult check = checked(module, result.module, arguments);
    passed = check.passed;
    lines += check_line(check);
    json["check"] = {{"passed", check.passed},
                     {"inputs", check.inputs},
                     {"largest_error", check.largest_error},
                     {"tolerance", check.tolerance},
                     {"worst_output", check.worst_output}};
  }
  if (arguments.bench > 0 && passed) {
    json["latency"] = latency_report(module, folded_module, random_inputs(module, arguments.inputs, 0), arguments.bench);
    lines += latency_table(json["latency"]);
  }
  const int print_error = print(arguments, result.report, lines);
  write_json(arguments, json);
  if (!passed)
    throw Failure(kCheckFailed, "the folded module differs from the original by more than rounding; nothing was written");
  if (arguments.strict && !result.report.kept.empty()) {
    throw Failure(kNormKept,
                  fmt::format("norms were kept ({}) and --strict is on; nothing was written", result.report.kept.size()));
  }
  save(result.module, arguments);
  if (print_error != 0) {
    throw Failure(kCannotWrite, fmt::format("the report can't be printed: {}; OUT is written", std::strerror(print_error)));
  }
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
  CLI::App app("Removes batch normalization from a TorchScript module, exactly.", "bnfold");
  Arguments arguments;
  std::vector<std::string> inputs;
  make_failures_of_streams_errors();
  describe(app, arguments, inputs);
  try {
    app.parse(argc, argv);
    finish(arguments, inputs);
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
