"""Every setting of a run, frozen and checked. Read from TOML presets; the resolved one is saved with the run."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tumorlens.errors import TumorlensError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Stage = Literal["all", "layer1", "layer2", "layer3", "layer4"]


class Settings(BaseModel):
    """Base of all settings: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessSettings(Settings):
    """From the pixels of a slice to the square that the network sees; travels in the bundle."""

    size: Annotated[int, Field(ge=32, le=1024)] = 224
    """Side of the network's input, in pixels."""
    low_percentile: Annotated[float, Field(ge=0.0, lt=50.0)] = 0.5
    """Intensity percentile that becomes 0."""
    high_percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.5
    """Intensity percentile that becomes 1."""
    foreground: Share = 0.1
    """Scaled intensity above which a pixel belongs to the head."""
    margin: Share = 0.03
    """Border kept around the head, as a share of its longer side."""


class NetworkSettings(Settings):
    """What of the network is to choose."""

    dilated: bool = False
    """Keep the last stage at the resolution of the one before (its stride becomes dilation: Yu et al., Dilated Residual
    Networks, CVPR 2017): evidence maps of 14 x 14 instead of 7 x 7 at 224 pixels, for half as much computing again."""


class Architecture(NetworkSettings):
    """What a network needs to be built again; travels in the bundle."""

    strides: Literal["v1", "v1.5"] = "v1.5"
    """Whether a stage's stride stands in the first 1x1 convolution (v1: Keras) or in the 3x3 (v1.5: torchvision): what
    the initial weights were trained with."""


class AugmentSettings(Settings):
    """How far a training picture may be moved, turned and re-lit. Ranges are symmetric about no change."""

    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    """Degrees, either way."""
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share by which the picture may be enlarged or shrunk."""
    shift: Share = 0.06
    """Share of the side by which it may move."""
    mirror: Share = 0.5
    """Probability of a left-right mirror (the classes know no side)."""
    upside_down: Share = 0.15
    """Probability of an up-down flip: some sources store slices upside down, which must say nothing."""
    quarter_turn: Share = 0.15
    """Probability of a turn by 90 degrees, for the same reason."""
    gamma: Annotated[float, Field(ge=0.0, le=2.0)] = 0.4
    """Range of log gamma."""
    contrast: Share = 0.2
    """Range of contrast and brightness."""
    noise: Share = 0.03
    """Largest standard deviation of added noise, on intensities in 0 to 1."""
    blur: Share = 0.25
    """Probability of losing resolution (down to half), so that sharpness says little of the source."""
    bias_field: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest log gain of a smooth receive-coil field over the picture."""
    ghosting: Share = 0.0
    """Largest strength of motion ghosts along one axis, as a share of the signal."""
    stretch: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share by which one side may be longer than it should be: many collections squeeze slices into squares."""
    tone: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Range of the log slopes of a random rising curve through the grey values: other windows, other scanners."""
    motion: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    """Largest distance, as a share of the side, that the head moves while some lines of k-space are measured; half of
    the pictures stay still."""
    peel: Share = 0.0
    """Probability of losing scalp and skull, as collections of brains alone have lost them."""


class StageSettings(Settings):
    """Some epochs of fine-tuning at one input size; small pictures first cost a fraction."""

    epochs: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=32, le=1024)]


class HeadSettings(Settings):
    """The head phase: the new linear layer alone, on features of the frozen backbone."""

    epochs: Annotated[int, Field(ge=0)] = 30
    learning_rate: Positive = 0.05


class FineTuneSettings(Settings):
    """Fine-tuning of the backbone's later stages together with the head."""

    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)] = (
        StageSettings(epochs=7, size=160),
        StageSettings(epochs=1, size=224),
    )
    first_layer: Stage = "layer2"
    """The earliest part that learns; `all` includes the stem."""
    learning_rate: Positive = 0.01
    """Peak; rises linearly over the warm-up and falls as a cosine to zero."""
    warmup: Share = 0.08
    """Share of all steps spent rising."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the rate for each stage further from the head: earlier layers change less."""
    head_factor: Positive = 1.0
    """Factor on the rate of the linear layers, which begin with nothing learned."""
    averaging: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay a step of a moving average of the weights, which is then what is validated and kept; 0 is off."""
    blends: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = ()
    """Shares of the initial weights to try in the trained ones, for a model that is trained further; the one with the
    lowest validation loss is kept, or none. Empty is off."""
    evidence_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the loss that asks the class evidence to lie in the tumour, where a mask is known; 0 is off."""
    cell_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the loss that classifies each cell of the last two stages by the masks; 0 is off."""
    teacher_weight: Share = 0.5
    """Share of the class loss that asks for what teachers say, where there are any; the labels have the rest."""
    cached_views: Annotated[int, Field(ge=0, le=64)] = 0
    """Augmentations of each slice for which the frozen stages are computed once and kept on disk; 0 draws anew in every
    epoch and computes everything each time."""
    cache_gb: Positive = 20.0
    """Gigabytes that these may take on disk."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Epochs without a lower validation loss after which training stops."""

    @property
    def uses_masks(self) -> bool:
        """Whether tumour masks are read."""
        return self.evidence_weight > 0 or self.cell_weight > 0


class TrainSettings(Settings):
    """Everything that decides what `tumorlens train` learns."""

    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=2)] = 32
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    class_weights: bool = True
    """Weigh the loss by inverse class frequency in the training split."""
    sampling: Literal["every", "square_root"] = "every"
    """Which slices an epoch sees: `every` one once, or as many drawn, in which classes, sources and patients come by
    the square root of their number of slices."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bfloat16 where the processor or GPU computes in it, else float32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    preprocess: PreprocessSettings = PreprocessSettings()
    network: NetworkSettings = NetworkSettings()
    region: bool = False
    """Fit the region head at the end, where tumours have masks; `tumorlens region` does it later."""
    augment: AugmentSettings = AugmentSettings()
    head: HeadSettings = HeadSettings()
    finetune: FineTuneSettings = FineTuneSettings()

    @model_validator(mode="after")
    def _cache_fits(self) -> Self:
        plan, size = self.finetune, self.preprocess.size
        if plan.cached_views and (plan.first_layer == "all" or {stage.size for stage in plan.stages} != {size}):
            raise ValueError(
                f"finetune.cached_views {plan.cached_views} needs frozen stages and one input size: first_layer is "
                f"{plan.first_layer!r} (allowed: layer1 … layer4), sizes are {[stage.size for stage in plan.stages]} "
                f"(allowed: preprocess.size, {size})"
            )
        return self


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("tumorlens") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_settings(preset: str) -> TrainSettings:
    """Read a preset by name, or any TOML file by path. A line `base = "best"` begins with the settings of that preset.

    Raises:
        TumorlensError: no such preset or file, or a key or value in it that is not allowed.
    """
    try:
        return TrainSettings.model_validate(_with_base(preset))
    except tomllib.TOMLDecodeError as error:
        raise TumorlensError(f"preset {preset!r} is not valid TOML ({error}); mend that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # settings that do not go together
            raise TumorlensError(f"preset {preset!r}: {first['msg'].removeprefix('Value error, ')}") from error
        raise TumorlensError(
            f"preset {preset!r}: {where} = {first['input']!r} is not allowed: {first['msg']}"
        ) from error


def _text(preset: str) -> str:
    if preset in preset_names():
        return (resources.files("tumorlens") / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
    if not Path(preset).is_file():
        raise TumorlensError(
            f"no preset {preset!r}: take one of {', '.join(preset_names())}, or the path of a TOML file"
        )
    try:
        return Path(preset).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TumorlensError(f"preset {preset!r} is no text in UTF-8 ({error}); save it with that encoding") from error


def _with_base(preset: str) -> dict[str, Any]:
    given = tomllib.loads(_text(preset))
    base = given.pop("base", None)
    if base is None:
        return given
    if base not in preset_names():  # those that come with the package: a chain of them ends
        raise TumorlensError(
            f"preset {preset!r}: base = {base!r} is not allowed: take one of {', '.join(preset_names())}"
        )
    return _merged(_with_base(base), given)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else, a list of stages too, is replaced."""
    both = [key for key in changes if isinstance(base.get(key), dict) and isinstance(changes[key], dict)]
    return {**base, **changes, **{key: _merged(base[key], changes[key]) for key in both}}
