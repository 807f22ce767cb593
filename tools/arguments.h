// The command line.
#pragma once

#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bnfold/target.h"
#include "inputs.h"

struct Arguments {
  std::string in;
  std::string out;
  std::vector<std::string> input_texts;
  std::vector<InputShape> inputs;
  int check = 0;
  int bench = 0;
  std::vector<std::string> preserved;
  std::vector<std::string> libraries;
  std::string device_text;
  std::optional<at::Device> device;
  std::string target_text = "libtorch";
  bnfold::Target target = bnfold::Target::libtorch;
  std::optional<int64_t> fold_limit;
  bool frozen = false;
  bool strict = false;
  bool explain = false;
  std::string json;
  std::string plot;
};

// Adds every option to `app`, which writes into `arguments` when it parses.
void describe(CLI::App& app, Arguments& arguments);

// Reads the inputs and the device, and looks at what no option can tell alone. Throws Failure where the command line makes no sense.
void complete(Arguments& arguments);
