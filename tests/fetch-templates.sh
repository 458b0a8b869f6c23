#!/usr/bin/env bash
# Downloads real chat templates for server/tests/template_goldens.rs to target/test-data/templates.
# They come from the source distribution of the Python package llama-cpp-python (MIT licence),
# which is unpacked and never installed.
set -euo pipefail
cd "$(dirname "$0")/.."
package=llama_cpp_python-0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
target=target/test-data/templates
[ -d "$target" ] && exit 0
mkdir -p target/test-data
scratch=$(mktemp -d target/test-data/fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-binary llama-cpp-python --dest "$scratch" llama-cpp-python==0.3.36
echo "$sha256  $scratch/$package.tar.gz" | sha256sum --check --quiet
tar -xzf "$scratch/$package.tar.gz" -C "$scratch" "$package/vendor/llama.cpp/models/templates"
mv -T "$scratch/$package/vendor/llama.cpp/models/templates" "$target"
echo "$target"
