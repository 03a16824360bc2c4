"""A stand-in for Apple's GPUs: what is moved there stays on the CPU, but may not be float64."""

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class SimulatedMPS(TorchFunctionMode):
    """Keep on the CPU what goes to ``mps``, and refuse float64, which that device does not have.

    Attributes:
        arrivals: the number of tensors that were moved or made there.
    """

    def __init__(self):
        super().__init__()
        self.arrivals = 0

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = named or {}
        if not any(map(_is_there, (*arguments, *named.values()))):
            return function(*arguments, **named)
        arguments = [CPU if _is_there(each) else each for each in arguments]
        named = {key: CPU if _is_there(each) else each for key, each in named.items()}
        result = function(*arguments, **named)
        if isinstance(result, torch.Tensor):
            if result.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            self.arrivals += 1
        return result


def _is_there(argument):
    return isinstance(argument, torch.device) and argument.type == "mps"
