"""The command line: parse, call, and print sentences instead of tracebacks."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tumorlens.errors import TumorlensError

PROG = "tumorlens"
ABOUT = "Brain tumours in MRI slices: train, measure, predict and explain. For research and teaching only."

#: The libraries of the extra `train`.
FOR_TRAINING = ("torch", "monai", "safetensors", "huggingface_hub", "onnx", "onnxscript")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when everything went well; 1 when an input or the call was wrong; 130 after Ctrl-C.
    """
    import tyro
    from pydantic import ValidationError

    from tumorlens.cli.terminal import fail

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["data"]:
            answer = tyro.extras.subcommand_cli_from_dict(
                data_commands(),
                prog=f"{PROG} data",
                description="Fetch, index, audit and split labelled images.",
                args=given[1:],
            )
        elif given[:2] == ["explain", "score"]:
            from tumorlens.cli.explain import score

            answer = tyro.cli(score, prog=f"{PROG} explain score", args=given[2:])
        else:
            answer = tyro.extras.subcommand_cli_from_dict(commands(given), prog=PROG, description=ABOUT, args=given)
    except KeyboardInterrupt:
        fail("interrupted; what was done is kept")
        return 130
    except (TumorlensError, ValidationError, ModuleNotFoundError, OSError) as error:
        text = _sentence(error, given[0] if given else "")
        if text is None:
            raise
        return fail(text)
    return int(answer or 0)


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
        if (error.name or "").partition(".")[0] not in FOR_TRAINING:
            return None
        return (
            f"`{PROG} {command}` needs {error.name}, which is not installed: predicting and evaluating do without. "
            "Install the extra `train` (`pip install -r requirements-dev.txt`)"
        )
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}. Check the path and its permissions"
    return str(error)


def data_commands() -> dict[str, Callable[..., Any]]:
    """What follows `tumorlens data`."""
    from tumorlens.cli import audit, data, fetch, split

    return {"fetch": fetch.fetch, "index": data.index, "audit": audit.audit, "split": split.split}


def commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """All commands but those of `data`; the preset named in `arguments` gives the training defaults."""
    from tumorlens.cli import explain, measure, models, predict

    settings = models.preset_settings(arguments) if arguments[:1] in (["train"], ["crossval"]) else None
    return {
        "data": data_overview,
        "train": models.train_command(settings),
        "crossval": models.crossval_command(settings),
        "evaluate": measure.evaluate,
        "review": measure.review,
        "calibrate": measure.calibrate,
        "export": models.export,
        "refusal": models.refusal,
        "region": models.region,
        "predict": predict.predict,
        "explain": explain.explain,
        "app": predict.app,
    }


def data_overview() -> None:
    """Fetch, index, audit and split labelled images (see `tumorlens data --help`)."""
    main(["data", "--help"])
