"""
C{python -m tests.fuzz [--seconds N] [--corpus DIRECTORY] [TARGET ...]}: fuzzing
guided by coverage, with atheris (C{pip install '.[fuzz]'}).

Each target runs in a process of its own, since a finding ends it: libFuzzer
then prints the input, and leaves it in C{DIRECTORY}.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def _fuzz(name: str, seconds: int, corpus: str) -> None:
    """Fuzz one target, in this process, to its end."""
    import atheris

    with atheris.instrument_imports(include=["dynbalance", "tests.fuzz"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS

    for number, seed in enumerate(SEEDS[name]()):
        Path(corpus, f"seed-{number}").write_bytes(seed)
    words = Path(corpus).with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in TARGETS[name].words))
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048"]
    options = [f"-artifact_prefix={corpus}-", "-print_final_stats=1"]
    if TARGETS[name].words:
        options.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *limits, *options, corpus], TARGETS[name].run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _figures(said: str) -> str:
    runs = re.findall(r"number_of_executed_units: *(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    return f"{runs[-1] if runs else '?'} runs, {covered[-1] if covered else '?'} edges"


def main() -> int:
    """@return: how many targets had a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", default="", help="where inputs are kept; default: nowhere")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    options = parser.parse_args()
    if options.alone:
        _fuzz(options.targets[0], options.seconds, options.corpus)
    from tests.fuzz.targets import TARGETS

    found = 0
    with tempfile.TemporaryDirectory() as nowhere:
        for name in options.targets or TARGETS:
            corpus = os.path.join(options.corpus or nowhere, name)
            os.makedirs(corpus, exist_ok=True)
            command = [sys.executable, "-m", "tests.fuzz", "--alone", "--corpus", corpus]
            command += ["--seconds", str(options.seconds), name]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", check=False,
            )  # fmt: skip
            print(f"{name}: {_figures(done.stdout)}", flush=True)
            if done.returncode:
                found += 1
                lines = [line for line in done.stdout.splitlines() if "INFO: Instr" not in line]
                print("\n".join(lines[-40:]), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
