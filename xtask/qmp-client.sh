#!/usr/bin/env bash
# Installs QEMU's own QMP client from PyPI into target/qmp-venv, for the trials of `dirtyrig serve` that it drives.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv target/qmp-venv
target/qmp-venv/bin/pip install --quiet 'qemu.qmp==0.0.6'
