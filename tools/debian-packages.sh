#!/bin/sh
# Install what napari and a virtual screen need from Debian, when this is Debian and we are root;
# otherwise print the line to run. Usage: tools/debian-packages.sh PYTHON
set -eu

packages="xvfb xauth libgl1 libgl1-mesa-dri libegl1 libopengl0 libxkbcommon-x11-0 libdbus-1-3 \
libfontconfig1 libglib2.0-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 \
libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xfixes0 libxcb-xkb1"

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || exit 0

missing=
for package in $packages; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
# Debian's own Python comes without what `python -m venv` needs.
"$1" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive $install
else
    # Not an error yet: a desktop may bring the same libraries by other ways.
    echo "These Debian packages are missing. If the next steps fail, run" >&2
    echo "    sudo $install" >&2
fi
