#!/bin/sh
# Builds csdk.wasm and records of what; see modules/build.sh for the compiler.
set -eu
cd "$(dirname "$0")"
sdk=../../c
${CC:-clang} --target=wasm32-wasi -mexec-model=reactor -std=c11 -Oz -Wall -Wextra -Werror \
  -Wl,--strip-all -Wl,--gc-sections -I$sdk csdk.c $sdk/circles.c -o csdk.wasm
chmod 644 csdk.wasm
LC_ALL=C sha256sum build.sh $sdk/circles.h $sdk/circles.c csdk.c csdk.wasm >SHA256SUMS
