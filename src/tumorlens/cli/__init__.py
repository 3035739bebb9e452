"""The command line: parse, call, and print sentences instead of tracebacks."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, cast

from tumorlens.errors import TumorlensError

PROG = "tumorlens"
ABOUT = "Brain tumours in MRI slices: train, measure, predict and explain. For research and teaching only."

#: The libraries of the extra `train`.
FOR_TRAINING = ("torch", "monai", "safetensors", "huggingface_hub", "onnx", "onnxscript")
FOR_EXPLAINING = ("torchcam", "captum")


#: Every command: where it lives, and what it does. Modules are imported when their command is called, so that each
#: starts as fast as it can.
COMMANDS: dict[str, tuple[str, str]] = {
    "data fetch": ("fetch:fetch", "Download a public data set: resumed, checked, with its licence."),
    "data index": ("data:index", "Find labelled images and write a manifest."),
    "data audit": ("audit:audit", "Find copies, shared patients and other leaks between the sides of a manifest."),
    "data split": ("split:split", "Divide a manifest by patient."),
    "train": ("models:train_command", "Train a model, export it and evaluate it."),
    "crossval": ("models:crossval_command", "Train and test every fold, and evaluate all tested patients together."),
    "region": ("models:region", "Teach a trained model where tumours lie, from masks."),
    "refusal": ("models:refusal", "Teach a trained model to refuse what is no brain MRI."),
    "evaluate": ("measure:evaluate", "Evaluate the predictions of one or more runs: tables and a report."),
    "review": ("measure:review", "Look at a run's mistakes, source bias and tumour sizes."),
    "calibrate": ("measure:calibrate", "Fit temperature and label sets on a cross-validation."),
    "export": ("models:export", "Export weights to ONNX."),
    "quantise": ("models:quantise", "Add an 8-bit graph to a model: two to four times as fast."),
    "predict": ("predict:predict", "Classify pictures, DICOM files and volumes."),
    "explain": ("explain:explain", "Show where in a picture an answer comes from."),
    "explain score": ("explain:score", "Measure how well maps find tumours."),
    "explain sanity": ("explain:sanity", "Measure whether maps follow the weights, by drawing these anew."),
    "app": ("predict:app", "Open the app in the browser."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when everything went well; 1 when an input or the call was wrong; 130 after Ctrl-C; 141 where whoever reads
        what is printed has left, as `| head` does.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 141


def _run(given: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name on disk may be no text that the terminal can show
            stream.reconfigure(errors="backslashreplace")
    name = _named(given)
    if name not in COMMANDS:
        return _overview(name, given)
    from pydantic import ValidationError

    from tumorlens.cli.terminal import fail

    try:
        import tyro

        rest = given[len(name.split()) :]
        answer = tyro.cli(_command(name, given), prog=f"{PROG} {name}", args=rest)
    except KeyboardInterrupt:
        more = "; --resume goes on with it" if name in ("predict", "train") else ""
        fail(f"interrupted; what was done is kept{more}")
        return 130
    except BrokenPipeError:
        raise
    except (TumorlensError, ValidationError, ModuleNotFoundError, OSError) as error:
        text = _sentence(error, given[0])
        if text is None:
            raise
        return fail(text)
    return int(answer or 0)


def _named(given: Sequence[str]) -> str:
    """The command that the arguments name, or as much of it as they do."""
    two = " ".join(given[:2])
    return two if two in COMMANDS else given[0] if given and not given[0].startswith("-") else ""


def _command(name: str, given: Sequence[str]) -> Callable[..., Any]:
    module, _, function = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"tumorlens.cli.{module}"), function)
    if name in ("train", "crossval"):  # the preset that is named gives their defaults
        from tumorlens.cli.models import preset_settings

        return cast(Callable[..., Any], found(preset_settings(given)))
    return cast(Callable[..., Any], found)


def _overview(name: str, given: Sequence[str]) -> int:
    """Help on what there is; exit code 1 where something was asked for that there is not."""
    words = [word for word in given if word not in ("-h", "--help")]
    inner = {key: about for key, (_, about) in COMMANDS.items() if key.startswith(f"{name} ")}
    wrong = bool(words) and not (inner and words == [name])
    out = sys.stderr if wrong else sys.stdout
    if wrong:
        print(f"error: {' '.join(words[:2])!r} is no command; what there is:", file=out)
    lines = [f"  {key:<15} {about}" for key, about in (inner or {k: v[1] for k, v in COMMANDS.items()}).items()]
    usage = f"usage: {PROG} COMMAND ... [-h, --help]"
    more = f"`{PROG} COMMAND --help` says what each takes."
    print(usage, "", ABOUT, "", *lines, "", more, sep="\n", file=out)
    if wrong:
        return 1
    raise SystemExit(0)


def _sentence(error: Exception, command: str) -> str | None:
    """What a user is told of an error; None of one that is ours."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        if not where:  # settings that do not go together
            return first["msg"].removeprefix("Value error, ")
        return f"--{where} {first['input']!r} is not allowed: {first['msg']}"
    if isinstance(error, ModuleNotFoundError):
        return _missing((error.name or "").partition(".")[0], command)
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}. Check the path and its permissions"
    return str(error)


def _missing(library: str, command: str) -> str | None:
    if library == "nncf":
        return f"`{PROG} {command}` needs nncf, which is not installed: `pip install 'nncf>=3.0'`"
    if library in FOR_EXPLAINING:
        return (
            f"this way to explain needs {library}, which is not installed. Install the extra `explain` "
            "(`pip install -r requirements-dev.txt`), or ask for other methods"
        )
    if library not in FOR_TRAINING:
        return None
    return (
        f"`{PROG} {command}` needs {library}, which is not installed: predicting and evaluating do without. "
        "Install the extra `train` (`pip install -r requirements-dev.txt`)"
    )
