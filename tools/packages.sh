# shellcheck shell=bash
#
# The Debian packages Sluice needs, once. Sourced by tools/demo, tools/check, tools/bench, .ci/run.
#
# packages_build   to build the programs, the provider stub and the bench; and to run the demo
# packages_check   what the gates need besides

# shellcheck disable=SC2034  # the arrays are read by the scripts that source this file
packages_build=(
    build-essential cmake ninja-build pkg-config python3
    libcurl4-openssl-dev liblmdb-dev libmsgpack-dev libconfig-dev libyajl-dev libmicrohttpd-dev
    check
)
# shellcheck disable=SC2034
packages_check=(
    clang clang-format clang-tidy cppcheck gcovr libclang-rt-14-dev pmccabe shellcheck spin valgrind
    curl mandoc mkdocs systemd
)

# is_installed PACKAGE
is_installed() {
    local state
    state=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) || return 1
    [ "$state" = installed ]
}

# install_packages PACKAGE...: installs what is missing, and touches nothing when nothing is.
install_packages() {
    local package missing=() as_root=()
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing packages: ${missing[*]}; install them as root, or install sudo" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
            --no-install-recommends "${missing[@]}" >/dev/null
}
