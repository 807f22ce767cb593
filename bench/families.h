// The families of benchmarks. Models are read when their benchmark runs.
#pragma once

#include <string>

// fold/NAME, freeze/NAME and copy/NAME: bnfold::fold and torch::jit::freeze on the module in the file `path`, and a copy of the folded graph.
void register_fold(const std::string& name, const std::string& path);

// fold_exported/NAME and files_exported/NAME: bnfold::fold on the program in the .pt2 file `path`, and reading and writing that file.
void register_exported_fold(const std::string& name, const std::string& path);

// latency/NAME/DEVICE/FORMAT/batch:N: the network in the file `path`, frozen, and folded and frozen, on images [N, 3, 224, 224].
void register_latency(const std::string& name, const std::string& path);

// bound/OPERATORS/DEVICE/FORMAT/batch:N: what a norm and a ReLU may become, and what they were.
void register_bounds();
