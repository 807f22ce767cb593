// How the program ends where it can't do what it was asked to.
#pragma once

#include <stdexcept>
#include <string>

// What the program promises to scripts.
enum ExitCode { kDone = 0, kCheckFailed = 1, kUsage = 2, kCannotLoad = 3, kNormKept = 4, kCannotWrite = 5 };

// A failure that ends the program with its exit code.
struct Failure : std::runtime_error {
  Failure(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), exit_code(code) {}
  ExitCode exit_code;
};
