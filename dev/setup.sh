#!/usr/bin/env bash
# Brings .venv up to requirements/dev.txt and pyproject.toml. Does nothing, in milliseconds, when it is.
# A set-up that was interrupted leaves no stamp and is done again from the start.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

# The path is part of the key: an environment does not survive being moved.
key=$( (pwd; cat requirements/dev.txt pyproject.toml dev/setup.sh) | sha256sum | cut -d' ' -f1)
stamp=.venv/.setup-done
[ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && exit 0

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.11 to 3.14 is needed and was not found. Install it (Debian: apt-get install python3"
    say "python3-venv) or name one: make setup PYTHON=/path/to/python3"
    return 2
}

# Two `make` at once: the second one waits, and then finds everything done.
exec 9>.setup.lock
flock 9
[ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && exit 0

python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip, venv' 2>/dev/null || dev/setup-tools.sh "python$version-venv"

say "1/3 creating .venv with Python $version"
rm -rf .venv
"$python" -m venv .venv

say "2/3 installing $(grep -c '==' requirements/dev.txt) locked packages, about 150 MB to download the first time"
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
"${pip[@]}" install --require-hashes --only-binary :all: -r requirements/dev.txt

say "3/3 installing livekit-supervisor itself, editable"
"${pip[@]}" install --quiet --no-deps --no-build-isolation --editable .

printf "%s\n" "$key" >"$stamp"
say "done"
