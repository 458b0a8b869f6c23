#!/usr/bin/env bash
# Downloads real chat templates and vocabularies for tests of text to target/test-data/templates
# and target/test-data/vocabularies (server/tests/template_goldens.rs, vocabulary_goldens.rs).
# They come from the source distribution of the Python package llama-cpp-python (MIT licence),
# which is unpacked and never installed.
set -euo pipefail
cd "$(dirname "$0")/.."
package=llama_cpp_python-0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
templates=target/test-data/templates
vocabularies=target/test-data/vocabularies
[ -d "$templates" ] && [ -d "$vocabularies" ] && exit 0
mkdir -p target/test-data
scratch=$(mktemp -d target/test-data/fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-binary llama-cpp-python --dest "$scratch" llama-cpp-python==0.3.36
echo "$sha256  $scratch/$package.tar.gz" | sha256sum --check --quiet
models="$package/vendor/llama.cpp/models"
tar -xzf "$scratch/$package.tar.gz" -C "$scratch" "$models"
if [ ! -d "$templates" ]; then
    mv -T "$scratch/$models/templates" "$templates"
fi
if [ ! -d "$vocabularies" ]; then
    mkdir "$scratch/vocabularies"
    mv "$scratch/$models"/ggml-vocab-* "$scratch/vocabularies"
    mv -T "$scratch/vocabularies" "$vocabularies"
fi
echo "$templates $vocabularies"
