"""The gradient of a network with respect to its input, as plain operations that can be exported.

Automatic differentiation runs while PyTorch runs and leaves nothing for an exporter to record. Here
the reverse pass is written out: `Reverse` runs a convolutional network node by node, keeps what
each node saw, and then goes back through the nodes with one rule each. Every rule is built from
operations that ONNX has, so the forward and the reverse pass are one graph.

The network is in eval mode: batch normalisation is an affine map and no row sees another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from oodserve.errors import RecipeError

Rule = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(module, input, output, gradient of the output) to the gradient of the input."""


@dataclass(frozen=True)
class Pass:
    """One run of a network: what it returned, and the way back.

    Attributes
    ----------
    output : (N, D) float
    pull_back : callable
        Gradient of a scalar with respect to `output`, (N, D), to its gradient with respect to the
        input, (N, 3, H, W).
    """

    output: Tensor
    pull_back: Callable[[Tensor], Tensor]


class Reverse:
    """A network that can be run forwards and back.

    Parameters
    ----------
    network : nn.Module
        Images (N, 3, H, W) to features (N, D), made of the modules in `RULES`, additions and
        `torch.flatten`. It is used as it is, not copied.

    Raises
    ------
    RecipeError
        The network has a part for which there is no rule.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._nodes = list(fx.Tracer().trace(network).nodes)
        for node in self._nodes:
            self._require_known(node)

    def run(self, images: Tensor) -> Pass:
        """Run the network on images (N, 3, H, W) float, and remember what the way back needs."""
        values: dict[fx.Node, Tensor] = {}
        output: Tensor | None = None
        for node in self._nodes:
            if node.op == "placeholder":
                values[node] = images
            elif node.op == "call_module":
                values[node] = self._module(node)(values[_source(node)])
            elif node.op == "call_function":
                values[node] = _call(node, values)
            else:
                output = values[_source(node)]
        assert output is not None
        return Pass(output, lambda gradient: self._back(values, gradient))

    def _back(self, values: Mapping[fx.Node, Tensor], gradient: Tensor) -> Tensor:
        gradients: dict[fx.Node, Tensor] = {}

        def give(node: fx.Node, part: Tensor) -> None:
            gradients[node] = gradients[node] + part if node in gradients else part

        for node in reversed(self._nodes):
            if node.op == "output":
                give(_source(node), gradient)
            elif node.op == "call_module":
                module, source = self._module(node), _source(node)
                rule = RULES[type(module)]
                give(source, rule(module, values[source], values[node], gradients.pop(node)))
            elif node.op == "call_function":
                part = gradients.pop(node)
                for source in node.all_input_nodes:
                    give(source, part if node.target in ADDITIONS else _like(part, values[source]))
        return gradients[self._nodes[0]]

    def _module(self, node: fx.Node) -> nn.Module:
        return self._network.get_submodule(str(node.target))

    def _require_known(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self._module(node)
            known, name = _has_rule(module), type(module).__name__
        else:
            known = node.op in ("placeholder", "output") or (
                node.op == "call_function" and node.target in (*ADDITIONS, torch.flatten)
            )
            name = str(node.target)
        if not known:
            raise RecipeError(
                f"the network's part `{node.name}` (`{name}`) has no rule for the gradient inside "
                "the graph; choose a score that needs no gradient"
            )


def _source(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0]


def _call(node: fx.Node, values: Mapping[fx.Node, Tensor]) -> Tensor:
    arguments = fx.node.map_arg(node.args, lambda source: values[source])
    keywords = fx.node.map_arg(node.kwargs, lambda source: values[source])
    # Never in place: the way back needs what was there.
    function: Any = operator.add if node.target is operator.iadd else node.target
    called: Tensor = function(*arguments, **keywords)
    return called


def _like(gradient: Tensor, source: Tensor) -> Tensor:
    return gradient.reshape(-1, *source.shape[1:])


def _convolution(module: nn.Conv2d, given: Tensor, _: Tensor, gradient: Tensor) -> Tensor:
    # What a stride skipped at the far edge has no gradient: it is added as rows and columns.
    rest = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) % stride
        for size, kernel, stride, padding, dilation in zip(
            given.shape[2:], module.kernel_size, module.stride, _pair(module.padding),
            module.dilation, strict=True,
        )
    ]  # fmt: skip
    return functional.conv_transpose2d(
        gradient, module.weight, stride=module.stride, padding=_pair(module.padding),
        output_padding=(rest[0], rest[1]), groups=module.groups, dilation=module.dilation,
    )  # fmt: skip


def _batch_norm(module: nn.BatchNorm2d, _: Tensor, __: Tensor, gradient: Tensor) -> Tensor:
    assert module.running_var is not None
    factor = torch.rsqrt(module.running_var + module.eps)
    scale = factor * module.weight if module.affine else factor
    return gradient * scale.reshape(1, -1, 1, 1)


def _relu(_: nn.ReLU, __: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
    return gradient * (output > 0).to(gradient.dtype)


def _max_pool(module: nn.MaxPool2d, given: Tensor, _: Tensor, gradient: Tensor) -> Tensor:
    # Windows overlap, so what several of them took from one place adds up.
    places = functional.max_pool2d(
        given, module.kernel_size, module.stride, module.padding, return_indices=True
    )[1]
    nothing = torch.zeros_like(given).flatten(2)
    return nothing.scatter_add(2, places.flatten(2), gradient.flatten(2)).reshape_as(given)


def _mean_pool(_: nn.Module, given: Tensor, __: Tensor, gradient: Tensor) -> Tensor:
    height, width = given.shape[2:]
    return (gradient / (height * width)).expand(-1, -1, height, width)


def _same(_: nn.Module, __: Tensor, ___: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def _flatten(_: nn.Module, given: Tensor, __: Tensor, gradient: Tensor) -> Tensor:
    return _like(gradient, given)


def _linear(module: nn.Linear, _: Tensor, __: Tensor, gradient: Tensor) -> Tensor:
    return gradient @ module.weight


def _pair(padding: Any) -> tuple[int, int]:
    return (int(padding[0]), int(padding[1]))


def _has_rule(module: nn.Module) -> bool:
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    if isinstance(module, nn.MaxPool2d):
        return module.dilation == 1 and not module.ceil_mode
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) in RULES


ADDITIONS = (operator.add, operator.iadd, torch.add)

RULES: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {
        nn.Conv2d: _convolution,
        nn.BatchNorm2d: _batch_norm,
        nn.ReLU: _relu,
        nn.MaxPool2d: _max_pool,
        nn.AdaptiveAvgPool2d: _mean_pool,
        nn.Linear: _linear,
        nn.Flatten: _flatten,
        nn.Identity: _same,
        nn.Dropout: _same,
    }
)
"""How the gradient goes back through each kind of layer."""
