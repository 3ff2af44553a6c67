"""What is shipped, and that README's commands are the ones that are run."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from mupc import __version__
from mupc._paths import rules_dir

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def rule_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.toml")}


def built(kind: str, source: Path, out: Path) -> Path:
    """hatchling alone, without an isolated environment: it needs no network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(out.iterdir())


def wheel_rules(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("mupc/rules/")]
        return {name.removeprefix("mupc/rules/"): archive.read(name) for name in names}


def test_wheel_sdist_and_checkout_hold_the_same_rules(tmp_path):
    pytest.importorskip("hatchling")
    here = rule_files(ROOT / "rules")
    assert here
    assert rule_files(rules_dir()) == here

    wheel = built("wheel", ROOT, tmp_path / "wheel")
    assert wheel_rules(wheel) == here
    with zipfile.ZipFile(wheel) as archive:
        assert "mupc/py.typed" in archive.namelist()
        assert not [name for name in archive.namelist() if name.startswith(("tests/", "examples/"))]

    sdist = built("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    again = built("wheel", next((tmp_path / "unpacked").iterdir()), tmp_path / "again")
    assert wheel_rules(again) == here


def test_an_installed_package_finds_its_rules(tmp_path):
    """The wheel, unpacked as pip would, asked from elsewhere."""
    pytest.importorskip("hatchling")
    with zipfile.ZipFile(built("wheel", ROOT, tmp_path / "wheel")) as archive:
        archive.extractall(tmp_path / "site")
    code = "import mupc._paths as p; print(p.rules_dir())"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(found) == (tmp_path / "site" / "mupc" / "rules").resolve()


def test_versions_agree():
    assert PROJECT["project"]["version"] == __version__


def test_every_pinned_package_has_one_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    names = [re.fullmatch(r"([A-Za-z0-9_.-]+)==[\w.]+", line)[1].lower() for line in lines]
    assert len(names) == len(set(names))
    assert {"torch", "transformers", "timm", "torchvision"} <= set(names)


def test_ci_runs_what_the_readme_says():
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    commands = re.search(r"```sh\n(python3 -m venv .venv &&\n.*?pytest.*?)```", readme, re.DOTALL)
    assert commands is not None
    wanted = [line.removesuffix(" &&").strip() for line in commands[1].splitlines()]
    assert [line for line in script.splitlines() if line in wanted] == wanted
