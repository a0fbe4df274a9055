#!/bin/sh
# Builds the C guests here and records of what; see modules/build.sh for the compiler.
set -eu
cd "$(dirname "$0")"
sdk=../../c
for m in csdk greet notes; do
  ${CC:-clang} --target=wasm32-wasi -mexec-model=reactor -std=c11 -Oz -Wall -Wextra -Werror \
    -Wl,--strip-all -Wl,--gc-sections -I$sdk $m.c $sdk/circles.c -o $m.wasm
  chmod 644 $m.wasm
done
LC_ALL=C sha256sum build.sh $sdk/circles.h $sdk/circles.c csdk.c csdk.wasm greet.c greet.wasm notes.c notes.json notes.wasm >SHA256SUMS
