// What --explain prints.
#pragma once

#include <string>

#include "bnfold/report.h"

// What the table leaves out: where each folded norm went, what was tried with each kept one, and what the reasons mean.
std::string explanation(const bnfold::Report& report);
