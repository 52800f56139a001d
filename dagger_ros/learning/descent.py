"""Least squares for perceptrons by Adam, with its gradients written out."""

from __future__ import annotations

import math
from typing import Protocol

import torch

from dagger_ros.contract import DaggerError
from dagger_ros.learning.network import Perceptrons

__all__ = ["LeastSquares"]

# Of Adam, as in torch.optim: Kingma and Ba (2015), arXiv 1412.6980.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class LeastSquares:
    """Fits perceptrons to batches of targets. Its learning rate falls to 0 along a cosine.

    The same as autograd with `torch.optim.Adam` and `CosineAnnealingLR`, bit for bit, but without a graph, without
    allocations, and with one pass of Adam over all parameters: two thirds of the time (`benchmarks/training.py`).

    Args:
        network: Whose parameters move.
        batch: B.
        steps: How many will be taken at most.
        learning_rate: At the start.
        weight_decay: Adam's.
        weighted: Whether `weights` are taken into account.
        products: `TrainingSettings.products`.

    Attributes:
        inputs: (M, B, I) of the next step; the caller fills them, as the two that follow.
        targets: (M, B, J).
        weights: (M, B, J) of the squared errors.
    """

    def __init__(
        self,
        network: Perceptrons,
        batch: int,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        weighted: bool,
        products: str,
    ) -> None:
        def empty(size: int) -> torch.Tensor:
            return torch.empty(network.members, batch, size, device=network.flat.device)

        self._steps, self._step, self._rate, self._decay = steps, 0, learning_rate, weight_decay
        self._products: _Products = _OneDnn() if products == "onednn" else _Blas()
        self._parameters = network.flat
        self._gradient, self._first, self._second, self._scratch = (torch.zeros_like(network.flat) for _ in range(4))
        self._layers, self._gradients = network.split(network.flat), network.split(self._gradient)
        self.inputs, self.targets = empty(network.sizes[0]), empty(network.sizes[-1])
        self.weights = empty(network.sizes[-1]) if weighted else None
        self._values = [self.inputs, *(empty(size) for size in network.sizes[1:])]
        self._deltas = [empty(size) for size in network.sizes[1:]]
        self._errors = empty(network.sizes[-1])

    @torch.no_grad()
    def step(self) -> None:
        """Moves the parameters down the gradient of the mean squared error, summed over the members."""
        last = len(self._layers) - 1
        for i, (weight, bias) in enumerate(self._layers):
            self._products.affine(bias, self._values[i], weight, self._values[i + 1])
            if i < last:
                self._values[i + 1].relu_()
        torch.sub(self._values[-1], self.targets, out=self._errors)
        torch.mul(self._errors, 2.0, out=self._deltas[-1])
        if self.weights is not None:
            self._deltas[-1].mul_(self.weights)
        self._deltas[-1].mul_(1 / (self._errors.shape[1] * self._errors.shape[2]))
        for i in range(last, -1, -1):
            delta, values = self._deltas[i], self._values[i]
            self._products.product(values.transpose(1, 2), delta, self._gradients[i][0])
            torch.sum(delta, 1, keepdim=True, out=self._gradients[i][1])
            if i > 0:
                below = self._deltas[i - 1]
                self._products.product(delta, self._layers[i][0].transpose(1, 2), below)
                torch.ops.aten.threshold_backward.grad_input(below, values, 0, grad_input=below)
        self._descend()

    @property
    def loss(self) -> float:
        """Mean squared error of the last batch, before its step; the mean of the members."""
        squared = self._errors**2
        if self.weights is not None:
            squared *= self.weights
        return float(squared.mean(dim=(1, 2)).sum()) / len(squared)

    def _descend(self) -> None:
        """A step of Adam, in the operations and the order of torch.optim."""
        if self._step:
            rise = 1 + math.cos(math.pi * self._step / self._steps)
            self._rate *= rise / (1 + math.cos(math.pi * (self._step - 1) / self._steps))
        self._step += 1
        self._gradient.add_(self._parameters, alpha=self._decay)
        self._first.lerp_(self._gradient, 1 - _BETA1)
        self._second.mul_(_BETA2).addcmul_(self._gradient, self._gradient, value=1 - _BETA2)
        root = (1 - _BETA2**self._step) ** 0.5
        torch.sqrt(self._second, out=self._scratch)
        self._scratch.div_(root).add_(_EPSILON)
        self._parameters.addcdiv_(self._first, self._scratch, value=-(self._rate / (1 - _BETA1**self._step)))


class _Products(Protocol):
    """What is done with matrices, for all members."""

    def affine(self, bias: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """`values @ weight + bias`."""

    def product(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        """`left @ right`."""


class _Blas:
    """The library that torch takes by itself."""

    def affine(self, bias: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        torch.baddbmm(bias, values, weight, out=out)

    def product(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        torch.bmm(left, right, out=out)


class _OneDnn:
    """oneDNN, which looks at what the processor can do and not at who made it: MKL leaves AVX-512 of AMD unused.

    Raises:
        DaggerError: If this torch was built without it.
    """

    def __init__(self) -> None:
        try:
            self._linear = torch.ops.mkldnn._linear_pointwise
        except AttributeError as error:
            raise DaggerError(
                f"products: expected a torch with oneDNN for onednn; {torch.__version__} has none: take blas"
            ) from error

    def affine(self, bias: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        for member in range(len(values)):
            out[member] = self._linear(values[member], weight[member].t(), bias[member, 0], "none", [], "")

    def product(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        for member in range(len(left)):
            a, b = left[member], right[member]
            # A result of few columns takes a third of the time on its side.
            if b.shape[1] < a.shape[0]:
                out[member] = self._linear(b.t(), a, None, "none", [], "").t()
            else:
                out[member] = self._linear(a, b.t(), None, "none", [], "")
