"""Run a target in a process of its own: the only place where the user's code is imported.

The child's answer is a JSON file. A return code says nothing (`os._exit(0)` returns 0); a file that is not there or
does not parse is a failure. This contains crashes, endless loops and huge allocations; it is no security sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mupc.errors import TargetError

_GRACE = 5.0  # seconds the child has to say itself where it is stuck
_BOOT = "import sys; sys.path.append({root!r}); from mupc.child import main; main()"


@dataclass(frozen=True, slots=True)
class Job:
    """What the child is to do, in JSON's types: `work` names it. `timeout` in seconds, `memory` in GB."""

    target: str
    settings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    scaling: tuple[str, ...] = ()
    timeout: float = 120.0
    memory: float = 8.0
    work: str = "plan"


@dataclass(frozen=True, slots=True)
class Answer:
    """The document (a plan, an audit) as JSON text, and a phrase on the inputs that the model was traced with.

    `standing` goes with a plan: the set-up as it stands, where it could be read.
    """

    document: str
    how: str
    standing: str | None = None


def run(job: Job) -> Answer:
    """Analyze the target in a child process. Raises `TargetError` for whatever kept the child from giving it."""
    with tempfile.TemporaryDirectory(prefix="mupc-") as folder:
        answer = Path(folder) / "answer.json"
        crash = Path(folder) / "crash.txt"
        root = str(Path(__file__).resolve().parent.parent)
        command = [
            sys.executable,
            "-P",
            "-c",
            _BOOT.format(root=root),
            json.dumps(asdict(job)),
            str(answer),
            str(crash),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=_progress_stream(), start_new_session=True)
        try:
            code = process.wait(job.timeout + _GRACE)
        except subprocess.TimeoutExpired:
            raise TargetError(f"{job.target}: {_late(job.timeout)}") from None
        finally:
            _end(process)
        return _read(answer, crash, code, job)


def _progress_stream() -> int:
    """Where what the user's code prints goes: our stderr, or the process's own where ours is no file (a notebook)."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return 2


def _end(process: subprocess.Popen[bytes]) -> None:
    """The child and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(answer: Path, crash: Path, code: int, job: Job) -> Answer:
    try:
        payload = json.loads(answer.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        payload = None
    if isinstance(payload, dict) and isinstance(payload.get("document"), str):
        return Answer(payload["document"], str(payload.get("how")), payload.get("standing"))
    if isinstance(payload, dict) and isinstance(payload.get("error"), str):
        raise TargetError(payload["error"])
    raise TargetError(f"{_crash_line(crash) or job.target}: {_death(code)}")


def _death(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; out of memory?" if name == "SIGKILL" else ""
        return f"the process was ended by {name} before the model was read{hint}"
    return f"the process exited with code {code} before the model was read"


def _crash_line(crash: Path) -> str | None:
    """The user's deepest line in what `faulthandler` wrote."""
    from mupc.blame import is_users, shown

    text = crash.read_text(encoding="utf-8", errors="replace") if crash.is_file() else ""
    for file, line in re.findall(r'File "(.+?)", line (\d+)', text):
        if is_users(file):
            return f"{shown(file)}:{line}"
    return None


def _late(seconds: float) -> str:
    return f"not done after {seconds:g} s; allow more with --timeout"


# Below: in the child.


def main() -> None:
    """Read the job, answer, and leave at once: the user's threads and exit handlers are not waited for."""
    job_text, answer, crash = sys.argv[1:]
    job = Job(**json.loads(job_text))
    import faulthandler

    with Path(crash).open("w", encoding="utf-8") as log:
        faulthandler.enable(log)
        reply = _Reply(Path(answer))
        _watch(job, reply)
        _mark_exits(reply)
        reply.send(_answer(job))


def _answer(job: Job) -> dict[str, Any]:
    """`{"document": its JSON, "how": ...}` or `{"error": one line}`."""
    from mupc.blame import blame
    from mupc.errors import MupcError

    try:
        _limit(job.memory)
        return WORK[job.work](job)
    except MupcError as error:
        return {"error": _spoken(error, job)}
    except ModuleNotFoundError as error:
        if error.name != "torch":
            return {"error": f"mupc failed on {job.target}: {blame(error)}; please report it"}
        return {"error": f"{job.target}: reading a model needs torch: pip install torch, here into {sys.prefix}"}
    except MemoryError as error:
        return {"error": f"{blame(error)}: {_too_big(job.memory)}"}
    except (Exception, SystemExit) as error:
        if os.environ.get("MUPC_TRACEBACK"):
            traceback.print_exc()
        return {"error": f"mupc failed on {job.target}: {blame(error)}; please report it"}


def plan_of(job: Job) -> dict[str, Any]:
    """Load, analyze, plan; then what the set-up does as it stands."""
    from mupc.target import load_target

    target = load_target(job.target, job.settings, job.inputs)
    from mupc.analysis import analyze
    from mupc.plan import make_plan
    from mupc.rulebase import load_rules

    options = dict(job.options)
    rules = load_rules(tuple(options.pop("rules", ())))
    standing, declared = options.pop("standing", True), options.pop("declared", False)
    analysis = analyze(
        target.model,
        target.args,
        target.kwargs,
        fixed=job.fixed,
        scaling=job.scaling,
        sizes=target.sizes,
        target=target.name,
    )
    plan = make_plan(analysis, rulebase=rules, **options)
    if not standing:
        return {"document": plan.to_json(), "how": target.how}
    from mupc.flow.target import stand

    told = stand(
        target, analysis, rules, options.get("optimizer", "adamw"), declared=declared, fixed=job.fixed,
        scaling=job.scaling,
    )  # fmt: skip
    said = told.standing.model_dump_json() if told.standing is not None else None
    return {"document": told.on(plan).to_json(), "how": target.how, "standing": said}


def audit_of(job: Job) -> dict[str, Any]:
    """Build at two sizes, with values, and hold one against the other."""
    from mupc.audit.build import audit_target

    found, how = audit_target(job)
    return {"document": found.to_json(), "how": how}


def check_of(job: Job) -> dict[str, Any]:
    """Build at several widths, measure, hold against flow."""
    from mupc.check.build import check_target

    found, how = check_target(job)
    return {"document": found.to_json(), "how": how}


WORK = {"plan": plan_of, "audit": audit_of, "check": check_of}


def _spoken(error: BaseException, job: Job) -> str:
    """The error's line; where memory ran out, what the limit is."""
    line = " ".join(str(error).split())
    if "allocate memory" in line or "MemoryError" in line or "Cannot allocate" in line:
        place = re.match(r"(\S+:\d+): ", line)
        asked = re.search(r"tried to allocate (\d+) bytes", line)
        size = f" wants {int(asked[1]) / 1e9:.3g} GB;" if asked else ""
        return f"{place[1] if place else job.target}: out of memory:{size} {_too_big(job.memory)}"
    return line


def _too_big(memory: float) -> str:
    return f"the limit is {memory:g} GB, raise it with --memory"


def _limit(memory: float) -> None:
    """Refuse what is too much when it is asked for, touched or not. Reserved address space does not count."""
    import torch  # noqa: F401  its own mappings come first

    try:
        import resource
    except ImportError:  # no such limit on this system: the watch still sees resident memory
        return
    limit = int(memory * 1e9)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _Reply:
    """The answer, sent once: by the work, or by the watch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()

    def send(self, payload: dict[str, Any], code: int = 0) -> None:
        with self.lock:
            draft = self.path.with_suffix(".draft")
            draft.write_text(json.dumps(payload), encoding="utf-8")
            draft.replace(self.path)
            sys.stdout.flush()
            sys.stderr.flush()
            _exit(code)


_exit = os._exit


def _watch(job: Job, reply: _Reply) -> None:
    """Say where the main thread is when time or memory is up."""
    main_thread = threading.get_ident()
    deadline = time.monotonic() + job.timeout

    def loop() -> None:
        while time.monotonic() < deadline:
            if _resident() > job.memory * 1e9:
                reply.send({"error": f"{here()}: out of memory: {_too_big(job.memory)}"})
            time.sleep(0.05)
        reply.send({"error": f"{here()}: {_late(job.timeout)}"})

    def here() -> str:
        from mupc.blame import running_line

        return running_line(sys._current_frames().get(main_thread)) or job.target

    threading.Thread(target=loop, daemon=True).start()


def _resident() -> float:
    """Bytes of memory this process held at most.

    Linux hands `ru_maxrss` on to whoever a process starts: in a large notebook the child would begin beyond its limit.
    """
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def _mark_exits(reply: _Reply) -> None:
    """`os._exit` in the user's code ends the process without a word: say where it stood."""
    ours = os.getpid()

    def leave(code: int) -> Any:
        if os.getpid() != ours:  # a forked worker of the user's
            _exit(code)
        from mupc.blame import running_line

        line = running_line(sys._getframe(1))
        reply.send({"error": f"{line}: os._exit({code}) ended the process before the model was read"}, code)

    os._exit = leave  # type: ignore[assignment]
