#!/bin/sh
# Builds courier.wasm and records of what; see modules/build.sh for the compiler.
set -eu
cd "$(dirname "$0")"
sdk=../../../guest-sdk/c
${CC:-clang} --target=wasm32-wasi -mexec-model=reactor -std=c11 -Oz -Wall -Wextra -Werror \
  -Wl,--strip-all -Wl,--gc-sections -I$sdk courier.c $sdk/circles.c -o courier.wasm
chmod 644 courier.wasm
LC_ALL=C sha256sum build.sh courier.c courier.wasm >SHA256SUMS
