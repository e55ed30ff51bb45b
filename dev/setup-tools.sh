#!/usr/bin/env bash
# Makes sure that programs which are no Python packages are there: setup-tools.sh PACKAGE[:COMMAND]...
# A missing one is installed from Debian's packages where this user may; else one message, and a failure.
set -euo pipefail

missing() {
    local wanted package
    for wanted in "$@"; do
        package=${wanted%%:*}
        case $wanted in
            *:*) command -v "${wanted#*:}" >/dev/null || echo "$package" ;;
            *) [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package" ;;
        esac
    done
}

mapfile -t packages < <(missing "$@")
[ ${#packages[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then as_root=(sudo); else as_root=(none); fi
fi
if [ "${as_root[*]:-}" = none ] || ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${packages[*]} (Debian: sudo apt-get install ${packages[*]})" >&2
    exit 2
fi

# Debian starts, and enables, the services that come with a package.  Tests need the programs, on ports of their own.
enabled() { if [ -d /run/systemd/system ]; then systemctl list-unit-files --state=enabled --no-legend | cut -d' ' -f1 | sort; fi; }
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '"${as_root[@]}" rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
    "${as_root[@]}" chmod 755 $policy
fi
before=$(enabled)

echo "setup: installing ${packages[*]} with apt-get" >&2
export DEBIAN_FRONTEND=noninteractive
install=("${as_root[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}")
if ! "${install[@]}" >/dev/null 2>&1; then
    # A package list that is missing or old: fetch it, and say what is wrong if that does not help.
    "${as_root[@]}" apt-get update -qq
    "${install[@]}" >/dev/null
fi
mapfile -t units < <(comm -13 <(echo "$before") <(enabled) | grep '\.service$' || true)
[ ${#units[@]} -eq 0 ] || "${as_root[@]}" systemctl disable -q "${units[@]}"

mapfile -t packages < <(missing "$@")
if [ ${#packages[@]} -gt 0 ]; then
    echo "setup: installed, but its command is not on PATH: ${packages[*]}" >&2
    exit 2
fi
