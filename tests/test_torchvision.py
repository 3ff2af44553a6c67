"""Detection models: their compiled ops need not be there, boxes are as many as only the data knows."""

from __future__ import annotations

import importlib

import pytest
import torch

from mupc import analyze
from mupc.inputs import find_inputs
from mupc.target import import_torchvision


def detector(name: str) -> torch.nn.Module:
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    with torch.device("meta"):
        model: torch.nn.Module = models.get_model(name, weights=None, weights_backbone=None)
    return model.eval()


@pytest.mark.parametrize("name", ["ssd300_vgg16", "retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
def test_detectors(name: str) -> None:
    model = detector(name)
    inputs = find_inputs(model)
    found = analyze(model, inputs.args, inputs.kwargs)
    assert found.coverage["unknown"] == 0
    assert found.coverage["assumed_ops"] == []
    heads = {n: p.role for n, p in found.parameters.items() if n.endswith(("bbox_pred.weight", "cls_logits.weight"))}
    assert set(heads.values()) <= {"output", "unused"}  # proposals are chosen by scores, in eval mode
    assert "output" in {p.role for p in found.parameters.values()}
    assert any(p.role == "input" for p in found.parameters.values())


@pytest.mark.parametrize("name", ["s3d", "mvit_v1_b"])
def test_clips_are_found(name: str) -> None:
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    with torch.device("meta"):
        model = models.get_model(name, weights=None).eval()
    assert "float32[2,3,16," in find_inputs(model).how
