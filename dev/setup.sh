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

log=.venv/setup.log
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)

# Counts the packages that pip names: in place on a terminal, else a line now and then.
count() {
    if [ -t 2 ]; then end='\r'; else end='\n'; fi
    awk -v total="$1" -v end="$end" '
        { print >> "'"$log"'" }
        /^Collecting / { n++; if (end == "\r" || n % 20 == 0)
            printf "setup:     %d of about %d: %-44s" end, n, total, $2 > "/dev/stderr" }
        /^Installing / { printf "setup:     unpacking %-50s\n", "" > "/dev/stderr" }'
}

try() {
    "$@" && return
    say "that failed; the end of $log:"
    tail -n 25 "$log" >&2
    return 1
}

install_locked() {
    "${pip[@]}" install --require-hashes --no-deps --only-binary :all: -r requirements/dev.txt 2>&1 |
        count "$(grep -c '==' requirements/dev.txt)"
}

install_project() {
    "${pip[@]}" install --no-deps --no-build-isolation --editable . >>"$log" 2>&1
}

say "2/3 installing the locked packages, about 190 MB to download the first time"
try install_locked

say "3/3 installing livekit-supervisor itself, editable"
try install_project

printf "%s\n" "$key" >"$stamp"
say "done"
