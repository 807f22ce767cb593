// The picture that --plot makes.
#pragma once

#include <string>

// Throws Failure where the ending of `path` names no format that a picture can have.
void require_picture_format(const std::string& path);

// The picture that Graphviz's `dot` makes of `graph`, in the format that the ending of `path` names; the text itself for .dot and .gv.
// Throws Failure where dot can't be run or fails.
std::string picture_of(const std::string& graph, const std::string& path);
