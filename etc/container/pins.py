"""
Writes requirements.txt anew: what pip would install today, with its hashes.

    python -m venv v && v/bin/python etc/container/pins.py > etc/container/requirements.txt

From the checkout, with the Python and on the platform of the image; wheels for
others have other hashes.
"""

import json
import subprocess
import sys

REPORT = [
    *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
    *("--quiet", "--only-binary=:all:", "--no-binary=txredisapi", "--report=-", ".[embedded]"),
]

written = ["# Made by etc/container/pins.py; not to be edited."]
report = json.loads(subprocess.check_output(REPORT))  # noqa: S603 - all words are ours
for each in sorted(report["install"], key=lambda one: one["metadata"]["name"].lower()):
    if each["requested"]:
        continue  # dynbalance itself
    name = each["metadata"]["name"].lower().replace("_", "-")
    digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
    written += [f"{name}=={each['metadata']['version']} \\", f"    --hash=sha256:{digest}"]
sys.stdout.write("\n".join(written) + "\n")
