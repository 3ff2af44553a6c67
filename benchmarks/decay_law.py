"""Sizes that the rule base derives rather than quotes, measured: gradients (so eps and clip weights) and coupled decay.

    python benchmarks/decay_law.py                      # a minute or two on a CPU
    python benchmarks/decay_law.py --widths 128 512 2048 --seeds 8

A small MLP with a gain (roles input, hidden, vector, output) is trained by Adam under muP at several widths. Printed:

1. per role, the slope of log(gradient entry) and of log(clip weight * gradient norm) over log(width), after training;
   the rules say `grad` and 0;
2. for three laws of coupled L2 (the rule's gradient/weight, a constant, microsoft/mup's width_mult), by how much decay
   turns what Adam normalises away from the gradient: the cosine between gradient and gradient + decay * weight, hidden
   matrix, and the loss after training. A law transfers where both are the same at every width.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mupc.exponents import Setting
from mupc.rulebase import Subject, load_rules

FEATURES, CLASSES, BATCH, STEPS, BASE = 16, 4, 64, 30, 128
WIDTH = ("width",)
SUBJECTS = {
    "input": Subject("input", fan_out=WIDTH),
    "hidden": Subject("hidden", fan_in=(WIDTH,), fan_out=WIDTH),
    "vector": Subject("vector", batch=WIDTH),
    "output": Subject("output", fan_in=(WIDTH,)),
}
LAWS = {
    "rule: gradient/weight": dict.fromkeys(SUBJECTS),
    "constant": dict.fromkeys(SUBJECTS, 0.0),
    "width_mult on matrices": {"input": 0.0, "hidden": 1.0, "vector": 0.0, "output": 1.0},
}


class Net(nn.Module):
    """input -> hidden -> gain -> output, in muP at this width, relative to the base width."""

    def __init__(self, width: int, settings: dict[str, Setting]) -> None:
        super().__init__()
        ratio = {"width": width / BASE}
        plain = {"input": FEATURES**-0.5, "hidden": BASE**-0.5, "output": BASE**-0.5}
        shapes = {"input": (width, FEATURES), "hidden": (width, width), "output": (CLASSES, width)}
        for role, shape in shapes.items():
            std = plain[role] * settings[role].std.evaluate(ratio)
            setattr(self, f"{role}_", nn.Parameter(torch.randn(shape) * std))
        self.vector_ = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x @ self.input_.T)  # type: ignore[operator]
        return torch.tanh(h @ self.hidden_.T) * self.vector_ @ self.output_.T  # type: ignore[operator]

    def role(self, name: str) -> nn.Parameter:
        return getattr(self, f"{name}_")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Run:
    """What one training came to."""

    loss: float
    grad_entry: dict[str, float]
    clipped_norm: dict[str, float]
    cosine: float


def train(width: int, seed: int, law: dict[str, float | None], decay: float) -> Run:
    """Adam with coupled L2 for STEPS steps; `law` gives the decay's power of the width (None: the rule's)."""
    torch.manual_seed(seed)
    rules = load_rules()
    settings = {role: rules.apply("mup", "adam", subject).setting for role, subject in SUBJECTS.items()}
    data = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, FEATURES, generator=data)
    y = torch.tanh(x @ torch.randn(FEATURES, CLASSES, generator=data))
    net, ratio = Net(width, settings), {"width": width / BASE}
    groups = []
    for role, setting in settings.items():
        power = law[role]
        grown = setting.decay.evaluate(ratio) if power is None else ratio["width"] ** power
        group = {"lr": 0.01 * setting.lr.evaluate(ratio), "eps": 1e-8 * setting.eps.evaluate(ratio)}
        groups.append({"params": [net.role(role)], **group, "weight_decay": decay * grown})
    optimizer = torch.optim.Adam(groups)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    loss = (net(x) - y).square().mean()
    loss.backward()
    hidden, grads = net.role("hidden"), {role: net.role(role).grad for role in SUBJECTS}
    pulled = grads["hidden"] + groups[1]["weight_decay"] * hidden.detach()  # type: ignore[operator]
    error = loss.item() ** 0.5  # gradients shrink with it as the fit gets better, which wider nets' does sooner
    cosine = torch.cosine_similarity(grads["hidden"].flatten(), pulled.flatten(), dim=0)  # type: ignore[union-attr]
    return Run(
        loss.item(),
        {role: float(g.square().mean().sqrt()) / error for role, g in grads.items() if g is not None},
        {
            role: settings[role].clip.evaluate(ratio) * float(g.norm()) / error
            for role, g in grads.items()
            if g is not None
        },
        cosine.item(),
    )


def slope(widths: list[int], values: list[float]) -> float:
    """Least squares on logarithms."""
    xs, ys = [math.log(w) for w in widths], [math.log(v) for v in values]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - mx) * (b - my) for a, b in zip(xs, ys, strict=True)) / sum((a - mx) ** 2 for a in xs)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decay", type=float, default=0.005, help="coupled L2 at the base width")
    args = parser.parse_args()
    runs = {w: [train(w, s, LAWS["constant"], 0.0) for s in range(args.seeds)] for w in args.widths}
    rules = load_rules()
    print(f"torch {torch.__version__}, widths {args.widths}, {args.seeds} seeds, {STEPS} steps of Adam under muP")
    print(f"{'role':<8}{'grad ~':>10}{'measured':>10}{'clipped norm':>14}")
    for role, subject in SUBJECTS.items():
        rule = rules.apply("mup", "adam", subject).setting.eps.degree()
        entry = slope(args.widths, [mean([r.grad_entry[role] for r in runs[w]]) for w in args.widths])
        norm = slope(args.widths, [mean([r.clipped_norm[role] for r in runs[w]]) for w in args.widths])
        print(f"{role:<8}{'n^' + str(rule):>10}{entry:>10.2f}{norm:>14.2f}")
    print(f"\n{'coupled L2':<24}" + "".join(f"{w:>16}" for w in args.widths) + "   cosine to the gradient / loss")
    for name, law in {"no decay": LAWS["constant"], **LAWS}.items():
        cells = []
        for width in args.widths:
            found = [train(width, s, law, 0.0 if name == "no decay" else args.decay) for s in range(args.seeds)]
            cells.append(f"{mean([r.cosine for r in found]):.2f} / {mean([r.loss for r in found]):.4f}")
        print(f"{name:<24}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
