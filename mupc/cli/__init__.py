"""The `mupc` command: parse, call, print, exit code. stdout is the result, stderr the progress."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mupc import __version__
from mupc.cli.analyze import analyze
from mupc.cli.audit import audit
from mupc.cli.check import check
from mupc.cli.classify import classify
from mupc.cli.explain import explain
from mupc.cli.rules import rules
from mupc.errors import MupcError

CLEAN, FINDINGS, FAILED, INTERRUPTED = 0, 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mupc")
@click.pass_context
def cli(context: click.Context) -> None:
    """Read a PyTorch model once and know how each of its parameters must scale."""
    if context.invoked_subcommand == "analyze":
        from mupc.config import find_config

        context.default_map = {"analyze": find_config(Path.cwd()).defaults()}


for command in (analyze, audit, check, classify, rules, explain):
    cli.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run and exit: 0 clean, 1 findings, 2 could not run. click's own 1 does not leak out."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """The exit code of `mupc ARGS`."""
    try:
        code = cli.main(args, prog_name="mupc", standalone_mode=False)
    except MupcError as error:
        click.echo(f"error: {error}", err=True)
        return FAILED
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has seen enough
        sys.stderr.close()
        return CLEAN
    return code if isinstance(code, int) else CLEAN
