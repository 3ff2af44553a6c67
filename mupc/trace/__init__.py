"""Any nn.Module to one torch.fx graph of pre-dispatch ATen ops on meta. The only caller of torch's tracers."""

from mupc.trace.capture import Guess, Trace, trace, unhurried

__all__ = ["Guess", "Trace", "trace", "unhurried"]
