#!/usr/bin/env bash
# Rewrites requirements/*.txt from pyproject.toml. Needs `uv` on PATH; UPGRADE=1 takes newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {
    uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        ${UPGRADE:+--upgrade} "$@"
}

lock --output-file requirements/daemon.txt
lock --extra agent --extra dev --constraint requirements/daemon.txt --output-file requirements/dev.txt
