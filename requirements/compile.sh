#!/bin/sh
# Compile the lock files: hashes for everything but torch, whose build differs by machine (see Makefile, Dockerfile).
#   sh requirements/compile.sh path/to/pip-compile
set -eu
compile() {
    out=$1
    shift
    "$pip_compile" --quiet --generate-hashes --allow-unsafe --unsafe-package torch --strip-extras \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header \
        --output-file "$out.full" "$@"
    # pip-compile puts what it was told is unsafe under this heading, last: torch alone.
    sed '/^# The following packages are considered to be unsafe/,$d' "$out.full" >"$out"
    rm "$out.full"
}
pip_compile=$1
cp requirements/dev.lock requirements/dev.lock.full 2>/dev/null || true   # keep the pins there are
compile requirements/dev.lock --extra dev pyproject.toml
compile requirements/runtime.lock --extra serve --constraint requirements/dev.lock pyproject.toml
compile requirements/build.lock --only-build-deps --build-deps-for wheel --no-annotate --constraint requirements/dev.lock \
    pyproject.toml
# For the cuda image alone: torch as the default index has it and what that brings, whatever this machine configures.
grep -o 'torch==[0-9.]*' pyproject.toml | env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
    "$pip_compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-emit-index-url \
    --no-emit-find-links --no-header --constraint requirements/runtime.lock --output-file requirements/torch-cuda.lock -
echo checkov | "$pip_compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-emit-index-url \
    --no-emit-find-links --no-header --output-file requirements/checkov.lock -
# What `make bench` compares with, in an environment of its own: nothing but its figures needs it.
echo datasets==5.2.0 | "$pip_compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/peer.lock -
