"""The command line: `python -m squeezebert_kernels info|check|compare|predict`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import squeezebert_kernels

PROGRAM = "python -m squeezebert_kernels"
# A person's mistake or a missing package: said in one line. Anything else is ours and keeps its traceback.
EXPECTED_ERRORS = (ImportError, OSError, RuntimeError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is 0, 1 when it failed, 2 when the arguments make no sense."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser().parse_args(words)
    options.command_line = f"{PROGRAM} {shlex.join(words)}"
    try:
        options.run(options)
    except EXPECTED_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=squeezebert_kernels.__doc__)
    parser.add_argument("--version", action="version", version=squeezebert_kernels.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="info | check | compare | predict")
    _add_info(commands)
    _add_check(commands)
    _add_compare(commands)
    _add_predict(commands)
    return parser


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("info", help="version, CPU, instruction sets found and chosen, threads, torch")
    parser.set_defaults(run=_info)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("check", help="whether optimize(model) runs a checkpoint on the kernels, and why not")
    parser.add_argument("model", help="Hub id, or folder with config.json and weights")
    parser.set_defaults(run=_check)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="this library beside its peers, on this machine",
        description="Times Hugging Face, torch.compile, ONNX Runtime, OpenVINO and this library in turn, in one "
        "process, on fixed shapes and on the sentences of a text; checks that all give the same output.",
    )
    parser.add_argument("--model", help="Hub id or folder (default: SqueezeBERT-base with seeded weights)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="English text (default: one that is shipped)")
    parser.add_argument("--batch", type=int, help="one shape of this many sequences in place of the usual five")
    parser.add_argument("--seq", type=int, help="one shape of this many tokens in place of the usual five")
    parser.add_argument("--sentences", type=int, default=8, help="of the text, in one batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="for every peer alike (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        default="float32",
        metavar="NAMES",
        help="float32, float16, bfloat16, int8, separated by commas, or all (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=105.0, help="for the whole run (default: %(default).0f)")
    parser.add_argument("--peers", metavar="NAMES", help="some of the peers, separated by commas (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw bars and a roofline")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.set_defaults(run=_compare)


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from .predict import TASKS

    parser = commands.add_parser("predict", help="run a checkpoint on a text and print what it predicts")
    parser.add_argument("--model", required=True, help="Hub id, or folder with config.json and model.safetensors")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--text", required=True, help="for fill-mask, with [MASK] in it")
    parser.add_argument("--question", help="for question-answering: what to ask the text")
    parser.set_defaults(run=_predict)


def _info(options: argparse.Namespace) -> None:
    from squeezebert_kernels.machine import describe

    fields = describe()
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


def _check(options: argparse.Namespace) -> None:
    from .check import check

    for line in check(options.model):
        print(line)


def _compare(options: argparse.Namespace) -> None:
    try:
        from rich.console import Console

        from squeezebert_kernels.compare.precisions import parse_dtypes
        from squeezebert_kernels.compare.run import Options, compare
    except ModuleNotFoundError as error:
        raise ImportError(f"compare needs {error.name}: pip install 'squeezebert_kernels[bench]'") from error

    chosen = Options(
        model=options.model,
        text=options.text,
        batch=options.batch,
        tokens=options.seq,
        sentences=options.sentences,
        threads=options.threads,
        dtypes=parse_dtypes(options.dtype),
        seconds=options.seconds,
        peers=tuple(options.peers.split(",")) if options.peers else None,
        json=options.json,
        plot=options.plot,
        markdown=options.markdown,
        command=options.command_line,
    )
    compare(chosen, Console(highlight=False))


def _predict(options: argparse.Namespace) -> None:
    from .predict import predict

    for line in predict(options.model, options.task, options.text, options.question):
        print(line)
