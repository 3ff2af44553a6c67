"""Bad targets: one clear line that names the user's own, no traceback of ours, in time; and what a good one gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mupc.child import Job, run
from mupc.errors import MupcError

ROOT = Path(__file__).parent.parent
BAD = Path("tests/bad_targets")


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def said(target: str, *, settings=(), inputs=(), timeout=60.0, memory=8.0) -> str:
    started = time.monotonic()
    with pytest.raises(MupcError) as caught:
        run(Job(target, settings, inputs, timeout=timeout, memory=memory))
    assert time.monotonic() - started < timeout + 10
    line = str(caught.value)
    assert "\n" not in line
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("missing.py", "missing.py: no such file"),
        ("needs_arguments.py:Nett", "{} has no 'Nett'; did you mean Net?"),
        ("import_raises.py", "{}:9: FileNotFoundError: weights.pt is not here"),
        ("factory_raises.py:make", "{}:8: ValueError: width 30 is not divisible by 4 heads"),
        ("exits.py", "{}:12: os._exit(0) ended the process before the model was read"),
        ("sys_exits.py", "{}:6: SystemExit: 0"),
        ("crashes.py", "{}:5: the process was ended by SIGSEGV before the model was read"),
        ("allocates.py", "{}:10: out of memory: the limit is 8 GB, raise it with --memory"),
        ("allocates_torch.py", "{}:6: out of memory: wants 100 GB; the limit is 8 GB, raise it with --memory"),
        ("data_dependent.py", "{}:12: "),
        ("not_a_module.py:make", "{}:4: make returned a dict, not a Module"),
        ("syntax_error.py", "{}:6: SyntaxError: "),
        ("several.py", "{}: several models (Encoder, Decoder): name one, for example {}:Decoder"),
        ("no_model.py", "{}: no nn.Module is defined here; is one of its functions a factory? {}:area"),
        ("needs_arguments.py", "{}: Net needs width: add width=VALUE after the target, or name a function"),
        ("forward_raises.py", "{}:12: AttributeError: 'Model' object has no attribute 'linaer'"),
    ],
)
def test_a_bad_target_is_one_line_that_names_the_users_own(target, line):
    file = target.partition(":")[0]
    where = target if file == "missing.py" else str(BAD / target)
    assert said(where).startswith(line.replace("{}", str(BAD / file)))


@pytest.mark.parametrize(("target", "line"), [("never_returns.py", "13"), ("never_imports.py", "6")])
def test_what_never_returns_is_stopped_where_it_is(target, line):
    message = said(str(BAD / target), timeout=5.0)
    assert message.startswith(f"{BAD / target}:{line}: not done after 5 s")


def test_a_large_parent_is_none_of_the_childs_memory():
    """What this process holds is not what the model takes (Linux hands a peak on to the processes that it starts)."""
    held = bytearray(1_200_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert said(str(BAD / "grows.py"), memory=1.1).startswith(f"{BAD / 'grows.py'}:5: out of memory")


def test_memory_taken_piece_by_piece_is_stopped():
    assert said(str(BAD / "grows.py"), memory=1.0).startswith(f"{BAD / 'grows.py'}:5: out of memory")


def test_bad_settings_and_inputs():
    target = str(BAD / "needs_arguments.py")
    assert said(target, settings=("width",)).startswith("bad setting 'width'")
    assert said(target, settings=("width=8", "dpth=3")) == f"{target}: Net has no setting 'dpth'; did you mean depth?"
    assert "column 10" in said(target, settings=("width=8",), inputs=("x:float32(2,8)",))
    assert said(target, settings=("width=8",), inputs=("y:float32[2,8]",)) == "--input y: Net.forward takes x"


def test_a_good_target_gives_its_plan_and_prints_to_stderr(tmp_path, capfd):
    file = tmp_path / "chatty.py"
    file.write_text((ROOT / "examples" / "mlp.py").read_text() + "\nprint('hello from the user')\n")
    answer = run(Job(str(file)))
    assert json.loads(answer.document)["schema_version"] == 1
    assert answer.how == "inferred: x:float32[2,784]"
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello from the user" in err


def test_interrupting_ends_the_whole_process_group(tmp_path):
    mark = tmp_path / "pid"
    file = tmp_path / "slow.py"
    file.write_text(
        "import os, subprocess, time\n"
        "sleeper = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(mark)!r} + '.draft', 'w').write(str(sleeper.pid))\n"
        f"os.rename({str(mark)!r} + '.draft', {str(mark)!r})\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "mupc", "analyze", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT)
    for _ in range(300):
        if mark.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert not _runs(int(mark.read_text()))


def _runs(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.1)
    return True
