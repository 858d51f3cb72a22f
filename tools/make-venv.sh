#!/bin/sh
# Make the virtual environment $1 with the first Python >= 3.11 that can.
# $PYTHON comes first when it is set. Debian keeps ensurepip in the package python3-venv: root gets it installed.
set -eu
venv=$1

usable() { # a Python that starts (a pyenv shim may not) and is new enough
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

create() {
    for python in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        if usable "$python" && "$python" -c 'import venv; from ensurepip import version' 2>/dev/null; then
            echo "making $venv with $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
            if "$python" -m venv --clear "$venv"; then
                return 0
            fi
        fi
    done
    return 1
}

if create; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "no Python here can make a virtual environment; installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends python3-venv >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; }
    if create; then
        exit 0
    fi
fi
rm -rf "$venv"
echo "srpha needs Python 3.11 or later with the venv module (on Debian: apt install python3-venv)" >&2
exit 1
