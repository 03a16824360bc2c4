"""A network that is named by the function that returns it: imported, called, checked and identified.

A name is ``package.module:function``. The function returns a `Model`, or a ``torch.nn.Module`` of which the
defaults of `Model` hold: it predicts eps, the reverse variance is fixed-large, the schedule is the paper's.

A name identifies nothing: the function may return other weights tomorrow. What identifies a network is the
digest of its parameters and buffers, with all else that its output can be seen to depend on: the arguments of
the function, the chain, numbers and texts among the attributes of its modules, and the source files of the
function and of the modules' classes, but for those of torch.
"""

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.files import content_digest, file_digest
from ddpm_eval.metrics.time_convention import first_line
from ddpm_eval.results.fields import Array
from ddpm_eval.spec import DiffusionSpec, NamedNetwork
from ddpm_eval.spec_text import read_value

NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def load_named(reference: str, arguments: Mapping[str, str]) -> Model:
    """Import a function, call it, and return the model that it returns.

    Modules in the current folder are found, as by ``python -m``. The newest model is kept, so that weights
    are read once by a command that asks for them again.

    Args:
        reference: ``package.module:function``.
        arguments: of the function by name, as JSON or plain text.

    Raises:
        ValueError: with one sentence, if there is no such module or function, it fails, or it returns no
            model whose weights can be told from others.
    """
    return _loaded(reference, tuple(sorted(arguments.items())))


@lru_cache(maxsize=1)
def _loaded(reference: str, arguments: tuple[tuple[str, str], ...]) -> Model:
    if not NAME.fullmatch(reference):
        raise ValueError(f"{reference!r} names no function (write MODULE:FUNCTION, such as networks:load)")
    module, _, name = reference.partition(":")
    function = _function(module, name)
    given = {key: read_value(key, text) for key, text in arguments}
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ValueError(f"{reference}: {error} (arguments are given by --network-args KEY=VALUE)") from None
    try:
        returned = function(**given)
    except Exception as error:
        raise ValueError(f"{reference} fails: {first_line(error)}") from error
    return _model(returned, reference)


def describe_named(
    reference: str, arguments: Mapping[str, str], model: Model
) -> tuple[NamedNetwork, DiffusionSpec]:
    """Return what a specification says of a named network and of its chain.

    Args:
        reference: of the function.
        arguments: of the function.
        model: that it returned, with a ``torch.nn.Module``.
    """
    assert isinstance(model.network, nn.Module)
    variance = model.variance if isinstance(model.variance, str) else "table"
    network = NamedNetwork(
        reference=reference,
        arguments=tuple(sorted(arguments.items())),
        weights=model_digest(reference, arguments, model),
        parameters=sum(parameter.numel() for parameter in model.network.parameters()),
        conditional=model.conditional,
        clip_samples=model.clip_samples,
    )
    diffusion = DiffusionSpec(
        timesteps=model.chain.timesteps,
        schedule=model.schedule if isinstance(model.schedule, str) else "table",
        prediction=model.predicts,
        objective="vlb" if variance.startswith("learned") else "mse",
        variance=variance,
    )
    return network, diffusion


def model_digest(reference: str, arguments: Mapping[str, str], model: Model) -> str:
    """Return the digest of a named network's weights and of all else that its output depends on.

    Args:
        reference: of the function.
        arguments: of the function.
        model: that it returned, with a ``torch.nn.Module``.
    """
    network = model.network
    assert isinstance(network, nn.Module)
    chain = model.chain
    choices = [reference, dict(arguments), model.predicts, model.conditional, model.clip_samples]
    parts: list[str | Array] = [json.dumps([*choices, str(model.dtype)], sort_keys=True)]
    parts += [_bytes(table) for table in (chain.beta, chain.alpha_bar, chain.network_time)]
    variance = model.variance
    parts.append(variance if isinstance(variance, str) else _bytes(torch.as_tensor(variance)))
    return content_digest([*parts, *_state(network), *_attributes(network), *_code(reference, network)])


def _function(module: str, name: str) -> Callable[..., object]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise ValueError(
            f"the module {module} cannot be imported from {here}: {first_line(error)}"
        ) from error
    if not callable(found):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise ValueError(f"{module} has no function {name} ({what} has this name there)")
    return found


def _model(returned: object, reference: str) -> Model:
    model = Model(returned) if isinstance(returned, nn.Module) else returned
    if not isinstance(model, Model):
        raise ValueError(
            f"{reference} returns a {type(returned).__name__}, not a torch.nn.Module or a ddpm_eval.Model"
        )
    if not isinstance(model.network, nn.Module) or next(_state(model.network), None) is None:
        raise ValueError(
            f"{reference} returns a network without parameters and buffers, so that its results could not be "
            "told from another's (make it a torch.nn.Module, and register its tensors)"
        )
    return model


def _state(network: nn.Module) -> Iterator[str | Array]:
    """Yield names and values of all parameters and buffers, those that are not saved included."""
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()]):
        yield f"{name} {tensor.dtype} {list(tensor.shape)}\n"
        yield _bytes(tensor)


def _attributes(network: nn.Module) -> Iterator[str | Array]:
    """Yield the modules' classes, and those of their public attributes that are tensors or plain values."""
    for path, module in network.named_modules():
        yield f"{path} {type(module).__module__}.{type(module).__qualname__}\n"
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or name == "training":
                continue
            if isinstance(value, Tensor):
                yield name
                yield _bytes(value)
            elif (text := _plain(value)) is not None:
                yield f"{name} {text}\n"


def _code(reference: str, network: nn.Module) -> Iterator[str]:
    """Yield the digests of the source files of the function and of the modules' classes."""
    names = {type(module).__module__ for module in network.modules()} | {reference.partition(":")[0]}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and name.partition(".")[0] != "torch" and os.path.isfile(file):
            yield f"{name} {file_digest(Path(file))}\n"


def _bytes(tensor: Tensor) -> Array:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if len(flat) else np.zeros(0, np.uint8)


def _plain(value: object) -> str | None:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return None
