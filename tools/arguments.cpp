#include "arguments.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <system_error>

#include "completion.h"
#include "failure.h"
#include "picture.h"

namespace {

constexpr int kMostRuns = 1000000;

bool is_one_file(const std::string& one, const std::string& other) {
  std::error_code error;
  const auto resolved = [&error](const std::string& path) { return std::filesystem::weakly_canonical(path, error); };
  return resolved(one) == resolved(other);
}

at::Device device_from(const std::string& text) {
  try {
    return at::Device(text);
  } catch (const c10::Error&) {
    throw Failure(kUsage, fmt::format("'{}' is no device; name one as in --device cpu or --device cuda:0", text));
  }
}

// That what is written beside OUT does not overwrite a module.
void require_no_module(const std::string& option, const std::string& what, const std::string& path, const Arguments& arguments) {
  for (const std::string& module : {arguments.in, arguments.out}) {
    if (!path.empty() && is_one_file(path, module)) {
      throw Failure(kUsage, fmt::format("{} would write the {} onto {}, which is a module", option, what, module));
    }
  }
}

// A fold may take minutes, and what it makes would be lost.
void require_folder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (folder.empty() || std::filesystem::is_directory(folder, error)) return;
  throw Failure(kCannotWrite, fmt::format("{}: there is no folder {} to write it into", path, folder.string()));
}

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (const bnfold::Target target : bnfold::all_targets()) names.emplace_back(bnfold::name(target));
  return names;
}

}  // namespace

void describe(CLI::App& app, Arguments& arguments) {
  app.failure_message([](const CLI::App* /*app*/, const CLI::Error& error) {
    return fmt::format("bnfold: {}; bnfold --help lists what there is\n", error.what());
  });
  app.set_version_flag("--version", std::string("bnfold ") + BNFOLD_VERSION);
  app.add_option("IN", arguments.in, "file to read: a TorchScript module in eval mode, or a program of torch.export, .pt2")
      ->required();
  app.add_option("OUT", arguments.out, "file to write, of the same format; written beside and renamed")->required();
  app.add_option("--input", arguments.input_texts,
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
  app.add_option("--preserve", arguments.preserved,
                 "keep a method or attribute beside forward, else each method that no other one calls; once for each")
      ->allow_extra_args(false)
      ->type_name("NAME");
  app.add_option("--device", arguments.device_text, "load IN onto cpu or cuda:N; else onto the devices that it was saved from")
      ->type_name("DEVICE");
  app.add_option("--load-library", arguments.libraries, "load a library with operators that IN needs; once for each")
      ->allow_extra_args(false)
      ->type_name("FILE");
  app.add_option("--target", arguments.target_text, "fold for what is to run or convert OUT; libtorch where it is not given")
      ->type_name("NAME")
      ->check(CLI::IsMember(targets()));
  app.add_flag("--frozen", arguments.frozen, "write the result of torch.jit.freeze on the folded module");
  app.add_flag("--strict", arguments.strict, "write nothing and exit with 4 where a norm was kept");
  app.add_flag("--explain", arguments.explain, "list where each norm went, and what the reasons for keeping one mean");
  app.add_option("--json", arguments.json, "write the report as JSON, - for standard output")->type_name("FILE");
  app.add_option("--plot", arguments.plot,
                 "draw with Graphviz the layers before and after and where each norm went: .svg, .pdf, .png or .dot")
      ->type_name("FILE");
  app.add_option("--fold-limit", arguments.fold_limit, "for developers: fold N norms at most, to find the fold that goes wrong")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  app.add_option_function<std::string>(
         "--completion",
         [&app](const std::string& shell) {
           std::cout << completion(app, shell);
           throw CLI::Success();
         },
         "print the completion for a shell and exit: eval \"$(bnfold --completion bash)\"")
      ->type_name("SHELL")
      ->check(CLI::IsMember(shells()));
  app.footer(
      "Examples:\n"
      "  bnfold resnet50.pt folded.pt\n"
      "  bnfold resnet50.pt folded.pt --input 1,3,224,224 --check 10 --bench 50\n"
      "  bnfold resnet50.pt folded.pt --explain --plot resnet50.svg\n"
      "  bnfold resnet50.pt2 folded.pt2 --explain\n"
      "  bnfold encoder.pt folded.pt --input 8,128:long --input 8,128:bool --check 3 --strict\n\n"
      "Exit codes: 0 done, 1 the check failed and nothing was written, 2 wrong usage, 3 IN can't be loaded or folded,\n"
      "4 --strict and a norm was kept, nothing written, 5 OUT, the report or the picture can't be written.");
}

void complete(Arguments& arguments) {
  for (const std::string& text : arguments.input_texts) {
    try {
      arguments.inputs.push_back(input_shape(text));
    } catch (const std::invalid_argument& error) {
      throw Failure(kUsage, error.what());
    }
  }
  if (!arguments.device_text.empty()) arguments.device = device_from(arguments.device_text);
  arguments.target = *bnfold::target_named(arguments.target_text);
  for (const std::string& path : {arguments.out, arguments.json, arguments.plot}) require_folder(path);
  require_no_module("--json", "report", arguments.json, arguments);
  require_no_module("--plot", "picture", arguments.plot, arguments);
  if (!arguments.plot.empty()) require_picture_format(arguments.plot);
}
