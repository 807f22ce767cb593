"""Hands networks to the tools that take TorchScript and exported programs, before and after folding, and prints what came of it: --help for the options."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "python"))

import networks  # noqa: E402
import tables  # noqa: E402
import torch  # noqa: E402
from calibrate import relative_error  # noqa: E402
from consumer import Consumer, Inputs  # noqa: E402

import bnfold  # noqa: E402

CONSUMERS = (
    *("lite_interpreter", "optimize_for_inference", "onnxruntime", "onnx_dynamo", "openvino", "ncnn", "coreml_torchscript", "coreml"),
    *("tvm", "executorch", "nncf"),
)
TIMEOUT = 1800  # seconds for a network and a consumer


def module_of(name: str) -> types.ModuleType:
    return importlib.import_module(f"with_{name}")


def consumer_of(name: str) -> Consumer:
    return module_of(name).CONSUMER


# ---- measuring


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a consumer made of a file."""

    norms: int = 0  #: that are a step still
    error: float | None = None  #: relative to the largest value that eager computes in double; None where it can't run here
    failure: str = ""  #: why there is nothing of the above

    def taken(self, tolerance: float) -> bool:
        return not self.failure and (self.error is None or self.error <= tolerance)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network in one form, handed on as it is and folded."""

    consumer: str
    network: str
    form: str
    norms: int  #: of the network
    before: Outcome
    after: Outcome


def outcome(name: str, make_file: Callable[[Path], Path], inputs: Inputs, expected: torch.Tensor) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            converted = module_of(name).convert(make_file(Path(folder, "network")), inputs, Path(folder))
            error = None if converted.run is None else relative_error(expected, converted.run().reshape(expected.shape))
        except Exception as failure:  # each tool raises its own; it is the outcome of this one file
            return Outcome(failure=tables.sentence(failure))
        return Outcome(converted.norms, error)


def cases(name: str, network: str) -> Iterator[Case]:
    """Hands the network to the consumer in every form, in this process."""
    consumer = consumer_of(name)
    target = consumer.target
    for form in networks.forms_of(one := networks.subject(network), consumer.takes_programs):
        module, inputs = networks.module_of(one, form)
        before = outcome(name, lambda path: networks.save(module, path), inputs, one.output)
        after = outcome(name, lambda path: networks.save_folded(module, inputs, target, path), inputs, one.output)
        yield Case(name, network, str(form), one.norms, before, after)


def cases_in_a_process(name: str, network: str) -> list[Case]:
    """The cases of a process of its own: what a tool needs of memory is gone before the next, and a crash costs one network."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--measure", name, network]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "TVM_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment)
        failure = "" if done.returncode == 0 else f"exit code {done.returncode}: {(done.stderr.strip() or '-').splitlines()[-1]}"
    except subprocess.TimeoutExpired:
        failure = f"more than {TIMEOUT} s"
    if failure:
        return [Case(name, network, "all", 0, Outcome(failure=failure), Outcome(failure=failure))]
    return [case_of(fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def announced(name: str, network: str) -> list[Case]:
    """The cases, with a line on standard error."""
    start = time.monotonic()
    found = cases_in_a_process(name, network)
    counts = cell(found, consumer_of(name).tolerance)
    print(f"{consumer_of(name).title}, {network}: {counts}  ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
    return found


def case_of(fields: dict) -> Case:
    return Case(**{**fields, "before": Outcome(**fields["before"]), "after": Outcome(**fields["after"])})


# ---- the tables


def marked(outcomes: Sequence[Outcome], tolerance: float) -> str:
    """The cells of one side: files taken, norms left in them, and the largest error."""
    taken = [one for one in outcomes if one.taken(tolerance)]
    errors = [one.error for one in taken if one.error is not None]
    return f"{len(taken)} | {sum(one.norms for one in taken)} | {f'{max(errors):.0e}' if errors else ''}"


def version(consumer: Consumer) -> str:
    return importlib.metadata.version(consumer.package)


def summary_table(found: Sequence[Case]) -> Iterator[str]:
    yield "| consumer | version | target | files | taken before | norms left | error | taken after | norms left | error |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in consumers_in(found):
        consumer, of_it = consumer_of(name), [case for case in found if case.consumer == name]
        sides = (marked([case.before for case in of_it], consumer.tolerance), marked([case.after for case in of_it], consumer.tolerance))
        yield f"| {consumer.title} | {version(consumer)} | `{consumer.target}` | {len(of_it)} | {' | '.join(sides)} |"


def network_table(found: Sequence[Case]) -> Iterator[str]:
    """How many files of each network are taken before and after."""
    names = consumers_in(found)
    yield f"| network | norms | {' | '.join(consumer_of(name).title for name in names)} |"
    yield f"|---|--:|{'---|' * len(names)}"
    for network in networks.NETWORKS:
        of_it = [case for case in found if case.network == network]
        if of_it:
            row = (cell([case for case in of_it if case.consumer == name], consumer_of(name).tolerance) for name in names)
            yield f"| {network} | {max(case.norms for case in of_it)} | {' | '.join(row)} |"


def cell(of_it: Sequence[Case], tolerance: float) -> str:
    """As "2 to 4 of 4", and "4 of 4" where folding changes nothing."""
    before, after = (sum(getattr(case, side).taken(tolerance) for case in of_it) for side in ("before", "after"))
    return f"{after} of {len(of_it)}" if before == after else f"{before} to {after} of {len(of_it)}"


def complaints(found: Sequence[Case]) -> Iterator[str]:
    """What is said of each file that is not taken, once for the forms of a network of which the same is said."""
    yield "| consumer | network | form | before | after |"
    yield "|---|---|---|---|---|"
    groups: dict[tuple[str, ...], list[str]] = {}
    for case in found:
        tolerance = consumer_of(case.consumer).tolerance
        said = [complaint(side, tolerance) for side in (case.before, case.after)]
        if any(said):
            groups.setdefault((case.consumer, case.network, *said), []).append(case.form)
    for (name, network, *said), forms in groups.items():
        texts = (text.replace("|", "\\|") for text in said)
        yield f"| {consumer_of(name).title} | {network} | {'; '.join(forms)} | {' | '.join(texts)} |"


def complaint(side: Outcome, tolerance: float) -> str:
    if side.taken(tolerance):
        return ""
    return shortened(side.failure) if side.failure else f"wrong by {side.error:.1g} of the largest value"


def shortened(text: str, longest: int = 160) -> str:
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def consumers_in(found: Sequence[Case]) -> list[str]:
    return [name for name in CONSUMERS if any(case.consumer == name for case in found)]


def problems(found: Sequence[Case]) -> Iterator[str]:
    """What is not as it should be: a file that is taken before the fold and not afterwards."""
    for case in found:
        tolerance = consumer_of(case.consumer).tolerance
        if case.before.taken(tolerance) and not case.after.taken(tolerance):
            yield f"{consumer_of(case.consumer).title}, {case.network}, {case.form}: {complaint(case.after, tolerance)}"


BEGIN, END = "<!-- made by scripts/consumers.sh -->", "<!-- end -->"


def result_section(found: Sequence[Case]) -> str:
    note = f"Generated by `scripts/consumers.sh` with torch {torch.__version__} and bnfold {bnfold.__version__}. Do not edit by hand."
    parts = [note, "\n".join(summary_table(found)), "### By network", "\n".join(network_table(found))]
    parts += ["### What is not taken", "\n".join(complaints(found))]
    return "\n\n".join([BEGIN, *parts, END])


def write(page: Path, found: Sequence[Case]) -> None:
    """Puts the tables into the page, between its two marks."""
    text = page.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text(head + result_section(found) + tail)


# ---- the command line


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="consumers_table.py", description=__doc__, epilog="Exit code 1 where a file is taken before the fold and not afterwards."
    )
    parser.add_argument("--consumer", nargs="+", metavar="NAME", choices=CONSUMERS, default=CONSUMERS, help=", ".join(CONSUMERS))
    parser.add_argument("--network", nargs="+", metavar="NAME", choices=networks.NETWORKS, default=networks.NETWORKS, help="only these")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables into this page too")
    parser.add_argument("--measure", nargs=2, metavar=("CONSUMER", "NETWORK"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if arguments.measure:
        torch.set_num_threads(1)
        with torch.no_grad():
            found = [dataclasses.asdict(case) for case in cases(*arguments.measure)]
        print("\n" + json.dumps(found))
        return 0
    pairs = list(itertools.product(arguments.consumer, arguments.network))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(itertools.chain.from_iterable(pool.map(lambda pair: announced(*pair), pairs)))
    print(result_section(found))
    if arguments.markdown:
        write(arguments.markdown, found)
    for problem in problems(found):
        print(f"consumers: {problem}", file=sys.stderr)
    return 1 if any(problems(found)) else 0


if __name__ == "__main__":
    sys.exit(main())
