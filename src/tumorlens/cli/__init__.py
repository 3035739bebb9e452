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
        else:
            answer = tyro.extras.subcommand_cli_from_dict(commands(given), prog=PROG, description=ABOUT, args=given)
    except TumorlensError as error:
        return fail(str(error))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        if not where:  # settings that do not go together
            return fail(first["msg"].removeprefix("Value error, "))
        return fail(f"--{where} {first['input']!r} is not allowed: {first['msg']}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in FOR_TRAINING:
            raise
        return fail(
            f"`{PROG} {given[0]}` needs {error.name}, which is not installed: predicting and evaluating do without. "
            "Install the extra `train` (`pip install -r requirements-dev.txt`)"
        )
    except OSError as error:
        return fail(f"{error.filename or 'file'}: {error.strerror or error}. Check the path and its permissions")
    except KeyboardInterrupt:
        fail("interrupted; what was done is kept")
        return 130
    return int(answer or 0)


def data_commands() -> dict[str, Callable[..., Any]]:
    """What follows `tumorlens data`."""
    from tumorlens.cli import audit, data, fetch, split

    return {"fetch": fetch.fetch, "index": data.index, "audit": audit.audit, "split": split.split}


def commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """All commands but those of `data`; the preset named in `arguments` gives the training defaults."""
    from tumorlens.cli import models, predict

    settings = models.preset_settings(arguments) if arguments[:1] in (["train"], ["crossval"]) else None
    return {
        "data": data_overview,
        "train": models.train_command(settings),
        "crossval": models.crossval_command(settings),
        "evaluate": models.evaluate,
        "export": models.export,
        "predict": predict.predict,
        "app": predict.app,
    }


def data_overview() -> None:
    """Fetch, index, audit and split labelled images (see `tumorlens data --help`)."""
    main(["data", "--help"])
