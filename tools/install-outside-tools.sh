#!/bin/sh
# Install the Debian packages listed in $1 when that is possible; never fail, the tests tell what is missing.
set -u

packages=$(sed 's/#.*//' "$1" | tr -s '[:space:]' ' ')
missing=
for package in $packages; do
    case $(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null) in
        *' installed') ;;
        *) missing="$missing $package" ;;
    esac
done
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "outside tools not installed (needs root and apt-get):$missing"
    exit 0
fi
# opensm and srptools start daemons that would act on a real fabric; on a machine that has one, that is for its owner to say.
if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ]; then
    echo "outside tools not installed, this machine has RDMA devices; install by hand if that is harmless:$missing"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
install() {
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@" >/dev/null 2>&1
}

echo "installing outside tools:$missing"
# shellcheck disable=SC2086 # a list of words
if ! install $missing; then
    apt-get update -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 >/dev/null 2>&1
    if ! install $missing; then
        for package in $missing; do
            install "$package" || echo "outside tool not available: $package"
        done
    fi
fi
exit 0
