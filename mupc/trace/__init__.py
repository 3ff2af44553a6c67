"""Any nn.Module to one torch.fx graph of pre-dispatch ATen ops on meta. The only caller of torch's tracers."""

from mupc.trace.blocks import LeftOut
from mupc.trace.capture import Trace
from mupc.trace.guesses import Guess
from mupc.trace.search import trace, unhurried

__all__ = ["Guess", "LeftOut", "Trace", "trace", "unhurried"]
