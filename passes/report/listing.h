// Which norms a report lists.
#pragma once

#include "bnfold/report.h"

namespace bnfold {

// A norm that is called twice is one norm: kept where one of its calls is, and else listed once for each layer that took it.
void list_each_norm_once(Report& report);

}  // namespace bnfold
