#!/usr/bin/env bash
# Installs the tools that users open our output in, for the trials of rig/tests/readers: from Debian as root, and from
# PyPI into target/readers. Does nothing where they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

packages="libhdrhistogram-java default-jre-headless python3-venv"
# shellcheck disable=SC2086
if ! dpkg -s $packages >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
fi

venv=target/readers
stamp="junitparser==5.0.3 xmlschema==4.3.2 prometheus-client==0.26.0 perfetto==0.59.1 pyarrow==26.0.1"
if [ "$(cat $venv/stamp 2>/dev/null)" != "$stamp" ]; then
    python3 -m venv --clear $venv
    # shellcheck disable=SC2086
    $venv/bin/pip install --quiet $stamp
    # The schema of Jenkins' xUnit plugin comes with the sources of pytest, which checks its own reports against it.
    $venv/bin/pip download --quiet --no-deps --no-binary pytest --dest $venv/pytest pytest==8.3.4
    mkdir -p $venv/share
    tar -xzOf $venv/pytest/pytest-8.3.4.tar.gz pytest-8.3.4/testing/example_scripts/junit-10.xsd >$venv/share/junit-10.xsd
    echo "$stamp" >$venv/stamp
fi
