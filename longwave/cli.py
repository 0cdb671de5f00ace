"""`longwave COMMAND`: every module in `longwave/commands` is a command, found by being there.

A command module has `HELP` (one line), `add_arguments(parser)` and `run(args) -> int` (the exit status). What the user can
mend arrives as a `LongwaveError` and leaves as one sentence and status 2; `--debug` shows the traceback instead.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from longwave import commands
from longwave._version import __version__
from longwave.errors import LongwaveError


def command_modules() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    return {name: importlib.import_module(f"{commands.__name__}.{name}") for name in names}


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, without the usage text in front of it."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n" if _first_rank() else None)


def _first_rank() -> bool:
    """Rank 0 says what all ranks find out alike."""
    return os.environ.get("RANK", "0") == "0"


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="longwave", description="Exact long convolutions: train, measure and explain.")
    parser.add_argument("--version", action="version", version=f"longwave {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in command_modules().items():
        sub = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except LongwaveError as error:
        if args.debug:
            raise
        if not (error.said or (error.everywhere and not _first_rank())):
            print(f"longwave {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `longwave … | head`: the reader has gone, and that is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if args.debug:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError | UnicodeError | MemoryError):
            sentence = f"the system refused ({reason}); check paths, rights, space and memory"
        else:  # a damaged file may be wrong in a way that no reader foresaw
            sentence = f"cannot go on ({type(error).__name__}: {reason}); a file may be damaged, --debug shows where"
        print(f"longwave {args.command}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"longwave {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
