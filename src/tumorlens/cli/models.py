"""`tumorlens train`, `crossval`, `export`, `refusal` and `region`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from tumorlens.cli.tables import show_evaluation
from tumorlens.cli.terminal import gentle_interrupt, progress_bar, say
from tumorlens.config import TrainSettings, load_settings

if TYPE_CHECKING:
    from tumorlens.train.recipe import Reporter

DEFAULT_PRESET = "best"


def preset_settings(arguments: Sequence[str]) -> TrainSettings:
    """The settings of the preset that the arguments name; single options then override them."""
    preset = DEFAULT_PRESET
    for number, text in enumerate(arguments):
        if text == "--preset" and number + 1 < len(arguments):
            preset = arguments[number + 1]
        elif text.startswith("--preset="):
            preset = text.partition("=")[2]
    return load_settings(preset)


def train_command(defaults: TrainSettings | None) -> Callable[..., int]:
    """`train` with a preset's settings as its defaults."""

    def train(
        manifest: Positional[Path],
        /,
        out: Path,
        weights: str = "hub",
        fold: str | None = None,
        teachers: tuple[Path, ...] = (),
        resume: bool = False,
        track: Literal["none", "tensorboard", "mlflow"] = "none",
        preset: str = DEFAULT_PRESET,
        settings: Annotated[TrainSettings, arg(name="")] = defaults or TrainSettings(),  # noqa: B008
    ) -> int:
        """Train a model, export it and evaluate it; where tumours have masks it learns at the end where they lie.

        Args:
            manifest: A manifest with splits, or with folds and --fold.
            out: The run folder to make.
            weights: Weights to start from: `hub` to download ImageNet's at a pinned revision; a ResNet-50 in a
                safetensors file (torchvision's key names) or a Keras file (.h5, .keras); the folder of a former run or
                of a bundle (to train on where it ended); `none` for random ones; `radimagenet` says where to get those.
            fold: The fold to test, where the manifest has folds: a number, or the source that was left out; or `all`
                for a last model that learns from every patient but the first fold's validation side, and tests none.
            teachers: Runs or bundles whose answers are learned beside the labels, so that one model knows what several
                do (--finetune.teacher-weight).
            resume: Continue an interrupted run.
            track: Write each epoch's figures to TensorBoard (in the run folder) or MLflow (MLFLOW_TRACKING_URI) too.
            preset: Name of a preset, or a TOML file; the options below override it.
            settings: All settings.
        """
        from tumorlens.experiment import run_experiment
        from tumorlens.model.weights import resolve, trained
        from tumorlens.train.order import Order

        with _reporter(track) as reporter:
            order = Order(manifest, out, settings, resolve(weights), fold, resume, tuple(map(trained, teachers)))
            evaluation = run_experiment(order, reporter)
        show_evaluation(evaluation)
        say(f"run folder: {out}; model: {out / 'bundle'}; report: {out / 'report.html'}")
        return 0

    return train


def crossval_command(defaults: TrainSettings | None) -> Callable[..., int]:
    """`crossval` with a preset's settings as its defaults."""

    def crossval(
        manifest: Positional[Path],
        /,
        out: Path,
        weights: str = "hub",
        folds: tuple[str, ...] = (),
        track: Literal["none", "tensorboard", "mlflow"] = "none",
        preset: str = DEFAULT_PRESET,
        settings: Annotated[TrainSettings, arg(name="")] = defaults or TrainSettings(),  # noqa: B008
    ) -> int:
        """Train and test every fold of a manifest, and evaluate all tested patients together.

        The same command continues a stopped run: complete folds are kept, the interrupted one is resumed.

        Args:
            manifest: A manifest with folds (`tumorlens data split MANIFEST --folds 5`, or --leave-one-source-out).
            out: The folder to make, with a run folder a fold.
            weights: As for train.
            folds: Only these folds.
            track: As for train.
            preset: As for train.
            settings: All settings.
        """
        from tumorlens.experiment import cross_validate
        from tumorlens.model.weights import resolve
        from tumorlens.train.order import Order

        with _reporter(track) as reporter:
            evaluation = cross_validate(Order(manifest, out, settings, resolve(weights)), reporter, folds)
        show_evaluation(evaluation)
        say(f"report: {out / 'report.html'}")
        return 0

    return crossval


def export(bundle: Positional[Path], /, half: bool = True) -> int:
    """Export a bundle's weights to ONNX, so that it runs without PyTorch.

    Args:
        bundle: A bundle folder, or a run folder that has one.
        half: Store weights in 16 bit (half the file; computed in 32 bit all the same).
    """
    from tumorlens.evaluate.results import retell
    from tumorlens.runtime.export import export_bundle

    folder = _bundle_in(bundle)
    card = export_bundle(folder, half)
    retell(folder)
    say(f"wrote {folder / 'model.onnx'} for classes {', '.join(card.classes)}")
    return 0


def quantise(bundle: Positional[Path], manifest: Positional[Path], /, fold: str | None = None) -> int:
    """Add an 8-bit graph to a bundle: two to four times as fast, nearly the same answers (`predict --precision int8`).

    Args:
        bundle: A bundle folder, or a run folder that has one.
        manifest: The manifest of its training, with splits, or with folds and --fold: training slices give the ranges,
            validation slices tell how far the answers agree.
        fold: The fold that the model is tested on.
    """
    from tumorlens.cli.sides import samples_of
    from tumorlens.evaluate.results import retell
    from tumorlens.runtime.quantise import quantise as add

    folder = _bundle_in(bundle)
    with progress_bar() as bar:
        found = add(folder, samples_of(manifest, fold, folder), manifest.parent, bar.update)
    say(
        f"on {found.checked_on} validation slices: {found.same:.1%} the same class, probabilities within "
        f"{found.largest:.3f} for 99 % of them, maps correlated by at least {found.correlation:.3f} for 99 %"
    )
    size = (folder / "model_int8.bin").stat().st_size
    page = retell(folder)
    say(f"wrote {folder / 'model_int8.xml'} and its weights ({size / 1e6:.0f} MB)" + (f" and {page}" if page else ""))
    return 0


def _bundle_in(folder: Path) -> Path:
    """A bundle folder, or that of a run folder."""
    return folder / "bundle" if (folder / "bundle").is_dir() else folder


def refusal(run: Positional[Path], /, others: Path, brains: Path | None = None) -> int:
    """Teach a trained model to refuse what is no brain MRI, and answers below a confidence of 0.5; exports it again.

    Args:
        run: A run folder made by train, whose pictures are still there.
        others: A folder with pictures that are no brain MRI, in a folder for each kind: photographs, X-rays, text…
        brains: A folder with brain MRI of kinds that training lacks, in a folder for each: not learned from, but how
            much of it is refused is said.
    """
    from tumorlens.evaluate.results import retell
    from tumorlens.refusal import teach_refusal
    from tumorlens.train.accidents import said_clearly

    again = "give the same command again"
    with progress_bar() as bar, said_clearly("teaching what to refuse", after_memory=again, after_files=again):
        found = teach_refusal(run, others, bar.update, brains)
    own = "brain slices, tested" if found.side == "test" else "brain slices, validation"
    for title, rows in (
        (own, found.brains), ("others, each kind unseen", found.kinds), ("foreign brains", found.foreign)
    ):  # fmt: skip
        if not rows:
            continue
        for name, (refused, n) in rows.items():
            say(f"{title}: {name}: {refused:.1%} of {n} refused")
        total = sum(n for _, n in rows.values())
        say(f"{title}: all: {sum(share * n for share, n in rows.values()) / max(total, 1):.1%} of {total} refused")
    retell(run / "bundle")
    say(f"wrote {run / 'bundle'}")
    return 0


def region(run: Positional[Path], /) -> int:
    """Teach a trained model where tumours lie, from masks: evidence regions, and a second look at `no_tumor`.

    The network stays as it is; its bundle is exported, reviewed and evaluated again. The same command goes on with one
    that was stopped.

    Args:
        run: A run folder made by train, whose pictures and masks are still there.
    """
    from tumorlens.experiment import add_region

    with _reporter("none") as reporter:
        evaluation = add_region(run, reporter)
    show_evaluation(evaluation)
    say(f"wrote {run / 'bundle'}; report: {run / 'report.html'}")
    return 0


@contextmanager
def _reporter(track: Literal["none", "tensorboard", "mlflow"]) -> Iterator["Reporter"]:
    from tumorlens.train.recipe import Reporter
    from tumorlens.train.tracking import tracker

    def message(text: str) -> None:
        say(f"{time.strftime('%H:%M:%S')}  {text}")

    with gentle_interrupt() as wish, progress_bar() as bar:
        yield Reporter(
            message=message,
            progress=bar.update,
            should_stop=lambda: bool(wish),
            track=tracker(track, message),
        )
