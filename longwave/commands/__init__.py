"""One file is one command of `longwave`; `longwave.cli` finds it by being here."""
