// Libraries with operators that a module needs.
#pragma once

#include <string>

// Loads the one at `path`. Throws Failure where it can't be loaded.
void load_library(const std::string& path);

// Loads torchvision's operators from its package beside that of torch; false where there is none, or it can't be loaded.
bool load_torchvision();
