#!/usr/bin/env bash
# One would have guessed that an in-place operator of ATen and its functional twin take the same arguments: names differ by an underscore alone.
# Six of the 182 pairs that have no overload name do not. Four dropouts call the first one self and input, ldexp names both otherwise,
# and polygamma takes its two in the other order.
# A user of a folding tool meets a program of torch.export that can't be loaded, where the tool made dropout of dropout_ and left the names in the
# file as they were; or, of polygamma_, other arguments. A tool that makes a graph functional has to look both schemas up.
# Seen with torch 2.15.0: alpha_dropout_, dropout_, feature_alpha_dropout_, feature_dropout_, ldexp_ and polygamma_.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch

arguments = {
    schema.name: [argument.name for argument in schema.arguments]
    for schema in torch._C._jit_get_all_schemas()
    if schema.name.startswith("aten::") and not schema.overload_name
}
pairs = {name: name[:-1] for name in arguments if name.endswith("_") and not name.endswith("__") and name[:-1] in arguments}
differ = {}
for name, twin in pairs.items():
    both = list(zip(arguments[name], arguments[twin]))
    if any(one != other for one, other in both):
        differ[name] = both
print("torch", torch.__version__, len(pairs), "pairs")
for name, both in sorted(differ.items()):
    print(f"  {name}: {', '.join(f'{one} is {other}' for one, other in both if one != other)}")
dropouts = {"aten::alpha_dropout_", "aten::dropout_", "aten::feature_alpha_dropout_", "aten::feature_dropout_"}
assert set(differ) == dropouts | {"aten::ldexp_", "aten::polygamma_"}, "other operators differ now"
assert differ["aten::polygamma_"] == [("self", "n"), ("n", "self")], "polygamma_ has the order of polygamma now"
PYTHON
