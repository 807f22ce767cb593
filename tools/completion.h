// Completion of the command line in a shell.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

// The shells that there is a completion for.
const std::vector<std::string>& shells();

// A script for `shell` that completes the options of `app`, their values where they are files or a choice, and files elsewhere.
std::string completion(const CLI::App& app, const std::string& shell);
