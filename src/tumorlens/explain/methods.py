"""Methods that need gradients or many passes, over a common base: for bundles with weights, with PyTorch.

Each explains a class by its logit or its probability, for the whole picture or at any residual block by either name.
What libraries have is wrapped: torchcam for the family of Grad-CAM, captum for occlusion and gradients by pixel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tumorlens.errors import TumorlensError
from tumorlens.model.network import TumorNet
from tumorlens.records import Float32

Target = Literal["logit", "probability"]


class Scores(nn.Module):
    """A network whose outputs (n, C) are logits, or probabilities at a temperature.

    What a region head says in `no_tumor` is no part of them: maps are of the network alone.
    """

    def __init__(self, network: TumorNet, target: Target, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.temperature = temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, h, w) to scores (n, C)."""
        logits: torch.Tensor = self.network(images)
        return logits if self.target == "logit" else torch.softmax(logits / self.temperature, dim=1)


class Method(ABC):
    """One way to explain. `cost` is what it takes in forward passes of a picture, about; a backward pass counts two.

    `at_block` says whether it looks at one block's feature map.
    """

    name: ClassVar[str]
    cost: ClassVar[int] = 3
    library: ClassVar[str] = ""
    at_block: ClassVar[bool] = True

    def __init__(self, scores: Scores, block: str = "") -> None:
        """Keep the network; `block` is where methods of feature maps look, the last one by default.

        Raises:
            TumorlensError: there is no such block, or the method does not look at one.
            ModuleNotFoundError: the library that it wraps is not installed; better now than after an hour.
        """
        if self.library:
            import_module(self.library)
        if block and not self.at_block:
            raise TumorlensError(f"{self.name} does not look at one block; leave out {block!r}, or take a kind of CAM")
        self.scores = scores
        self.block = scores.network.block(block) if block else _last(scores.network, 4)

    def explain(self, images: torch.Tensor, chosen: torch.Tensor) -> Float32:
        """Maps of pictures.

        Args:
            images: (n, 1, h, w), float32 in [0, 1].
            chosen: (n,) class numbers to explain.

        Returns:
            (n, h', w'), float32, at least 0: at the block's size, or at the picture's.
        """
        with _gradients(self.scores.network):
            maps = self._maps(images, chosen)
        found: Float32 = maps.detach().float().clamp(min=0).cpu().numpy()
        return found

    @abstractmethod
    def _maps(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor: ...


@contextmanager
def _gradients(network: TumorNet) -> Iterator[None]:
    """Gradients on, of what flows and not of weights; everything as it was afterwards."""
    training, learning = network.training, [value.requires_grad for value in network.parameters()]
    network.eval().requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        network.train(training)
        for value, before in zip(network.parameters(), learning, strict=True):
            value.requires_grad_(before)


def _last(network: TumorNet, layer: int) -> nn.Module:
    """The last block of a stage."""
    stage = network.part(f"layer{layer}")
    assert isinstance(stage, nn.Sequential)
    return stage[-1]


def _taken(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return scores.gather(1, chosen.view(-1, 1)).sum()


class _OfActivations(Method):
    """Methods of one block's activations (n, k, h, w) and the gradients of the score by them."""

    def _maps(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        hook = self.block.register_forward_hook(lambda module, given, out: kept.append(out))
        try:
            scores = self.scores(images.clone().requires_grad_(True))
        finally:
            hook.remove()
        (gradients,) = torch.autograd.grad(_taken(scores, chosen), kept)
        return self._combine(kept[0].detach(), gradients)

    @abstractmethod
    def _combine(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor: ...


class HiResCam(_OfActivations):
    """Draelos & Carin, Use HiResCAM instead of Grad-CAM, 2020. At the last block it is Grad-CAM."""

    name = "hirescam"

    def _combine(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        return (activations * gradients).sum(dim=1)


class EigenCam(_OfActivations):
    """Muhammad & Yeasin, Eigen-CAM, IJCNN 2020: the first principal component, whatever the class."""

    name = "eigencam"
    cost = 1

    def _combine(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        flat = activations.flatten(2).transpose(1, 2)  # (n, places, k)
        _, _, directions = torch.linalg.svd(flat - flat.mean(dim=1, keepdim=True), full_matrices=False)
        maps = (flat @ directions[:, 0].unsqueeze(2)).squeeze(2)
        maps = maps * maps.sum(dim=1, keepdim=True).sign()  # a component has no sign of its own
        shaped: torch.Tensor = maps.view(len(maps), *activations.shape[-2:])
        return shaped


class _OfTorchcam(Method):
    library = "torchcam"
    extractor: ClassVar[str]

    def _maps(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        import torchcam.methods

        kind: Any = getattr(torchcam.methods, self.extractor)
        found = []
        for image, number in zip(images, chosen.tolist(), strict=True):  # some of them take one picture at a time
            with kind(self.scores, target_layer=self.block, input_shape=tuple(image.shape)) as extractor:
                scores = self.scores(image.unsqueeze(0).clone().requires_grad_(True))
                found.append(extractor(number, scores, normalized=False)[0])
        return torch.cat(found)


class GradCam(_OfTorchcam):
    """Selvaraju et al., Grad-CAM, ICCV 2017."""

    name = "gradcam"
    extractor = "GradCAM"


class GradCamPlusPlus(_OfTorchcam):
    """Chattopadhyay et al., Grad-CAM++, WACV 2018."""

    name = "gradcam++"
    extractor = "GradCAMpp"


class LayerCam(_OfTorchcam):
    """Jiang et al., LayerCAM, IEEE TIP 2021."""

    name = "layercam"
    extractor = "LayerCAM"


class ScoreCam(_OfTorchcam):
    """Wang et al., Score-CAM, CVPR Workshops 2020: a forward pass for each of the block's channels."""

    name = "scorecam"
    cost = 2048
    extractor = "ScoreCAM"


class _OfCaptum(Method):
    library = "captum"
    at_block = False

    def _maps(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        found = [
            self._attribute(image.unsqueeze(0), number) for image, number in zip(images, chosen.tolist(), strict=True)
        ]
        return torch.cat(found).squeeze(1)

    @abstractmethod
    def _attribute(self, image: torch.Tensor, number: int) -> torch.Tensor: ...


class Occlusion(_OfCaptum):
    """Zeiler & Fergus, ECCV 2014: how much the score falls when a window an eighth of the side wide is dark."""

    name = "occlusion"
    cost = 225

    def _attribute(self, image: torch.Tensor, number: int) -> torch.Tensor:
        from captum.attr import Occlusion as Wrapped

        window = max(image.shape[-1] // 8, 2)
        found: torch.Tensor = Wrapped(self.scores).attribute(
            image, (1, window, window), strides=(1, window // 2, window // 2), target=number, perturbations_per_eval=16
        )
        return found


class IntegratedGradients(_OfCaptum):
    """Sundararajan, Taly & Yan, ICML 2017: from a black picture in 20 steps."""

    name = "integrated-gradients"
    cost = 60

    def _attribute(self, image: torch.Tensor, number: int) -> torch.Tensor:
        from captum.attr import IntegratedGradients as Wrapped

        found: torch.Tensor = Wrapped(self.scores).attribute(image, target=number, n_steps=20, internal_batch_size=10)
        return _smooth(found)


class SmoothGrad(_OfCaptum):
    """Smilkov et al., SmoothGrad, 2017: the mean size of gradients under noise, of 16 noisy pictures."""

    name = "smoothgrad"
    cost = 48

    def _attribute(self, image: torch.Tensor, number: int) -> torch.Tensor:
        from captum.attr import NoiseTunnel, Saliency

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found: torch.Tensor = NoiseTunnel(Saliency(self.scores)).attribute(
                image.clone(), nt_type="smoothgrad", nt_samples=16, nt_samples_batch_size=8, stdevs=0.1, target=number
            )
        return _smooth(found)


class Fusion(Method):
    """LayerCAM at the ends of three stages, each stretched to the finest and scaled to 1, the mean of them."""

    name = "fusion"
    cost = 9
    at_block = False
    blocks: ClassVar[tuple[int, ...]] = (2, 3, 4)

    def _maps(self, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        parts = []
        for layer in self.blocks:
            method = LayerCam(self.scores)
            method.block = _last(self.scores.network, layer)
            parts.append(method._maps(images, chosen).clamp(min=0))
        size = parts[0].shape[-2:]
        scaled = [
            F.interpolate((part / part.flatten(1).amax(dim=1).clamp(min=1e-12).view(-1, 1, 1)).unsqueeze(1), size=size,
                          mode="bilinear", align_corners=False)[:, 0]
            for part in parts
        ]  # fmt: skip
        return torch.stack(scaled).mean(dim=0)


def _smooth(values: torch.Tensor) -> torch.Tensor:
    """Gradients by pixel are grain; a bell of a fiftieth of the side makes an area of them."""
    from scipy.ndimage import gaussian_filter

    sigma = values.shape[-1] / 50
    grain = values.detach().abs().cpu().numpy()
    return torch.from_numpy(np.stack([gaussian_filter(item, (0, sigma, sigma)) for item in grain]))


_ALL: tuple[type[Method], ...] = (
    GradCam, GradCamPlusPlus, HiResCam, LayerCam, EigenCam, ScoreCam, Fusion,
    Occlusion, IntegratedGradients, SmoothGrad,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}


def find_method(name: str) -> Callable[..., Method]:
    """A method by name.

    Raises:
        TumorlensError: there is none of that name.
    """
    if name not in METHODS:
        raise TumorlensError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
