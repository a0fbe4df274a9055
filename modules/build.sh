#!/bin/sh
# Builds the modules in C, and records of what they were built.
#
#   modules/build.sh            builds, and rewrites modules/SHA256SUMS
#   modules/build.sh --check    builds into a temporary folder and compares
#
# The committed modules come from Debian 12's packages clang lld wasi-libc
# libclang-rt-14-dev-wasm32 (clang 14.0.6); another version makes other bytes, so
# --check wants the same one. CC overrides the compiler.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
sdk=../guest-sdk/c
cc=${CC:-clang}
flags="--target=wasm32-wasi -std=c11 -Oz -Wall -Wextra -Werror -Wl,--strip-all -Wl,--gc-sections"

build() { # build OUTDIR
  $cc $flags -mexec-model=reactor -Iguestbook -I$sdk guestbook/guestbook.c $sdk/circles.c -o "$1/guestbook.wasm"
  $cc $flags -mexec-model=reactor -Ialbum -I$sdk album/album.c $sdk/circles.c -o "$1/album.wasm"
  $cc $flags -mexec-model=reactor -Iinventory -I$sdk inventory/inventory.c $sdk/circles.c -o "$1/inventory.wasm"
  $cc $flags -mexec-model=reactor -Iaudit -I$sdk audit/audit.c $sdk/circles.c -o "$1/audit.wasm"
  $cc $flags -mexec-model=reactor -Irate-limit -I$sdk rate-limit/rate-limit.c $sdk/circles.c -o "$1/rate-limit.wasm"
  $cc $flags -Iwordcount wordcount/wordcount.c -o "$1/wordcount.wasm"
}

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
build "$out"
for m in album audit guestbook inventory rate-limit wordcount; do
  if [ "${1:-}" = --check ]; then
    cmp "$out/$m.wasm" "$m/$m.wasm"
  else
    install -m 644 "$out/$m.wasm" "$m/$m.wasm"
  fi
done

# modules/modules_test.go refuses a module whose sources changed since.
sums() {
  sha256sum build.sh $sdk/circles.h $sdk/circles.c \
    guestbook/guestbook.c guestbook/manifest.json guestbook/guestbook.wasm \
    wordcount/wordcount.c wordcount/manifest.json wordcount/wordcount.wasm \
    album/album.c album/manifest.json album/album.wasm \
    inventory/inventory.c inventory/manifest.json inventory/inventory.wasm \
    audit/audit.c audit/manifest.json audit/audit.wasm \
    rate-limit/rate-limit.c rate-limit/manifest.json rate-limit/rate-limit.wasm
}
if [ "${1:-}" = --check ]; then
  sums | cmp - SHA256SUMS
else
  sums >SHA256SUMS
fi
ls -l album/album.wasm audit/audit.wasm guestbook/guestbook.wasm inventory/inventory.wasm rate-limit/rate-limit.wasm wordcount/wordcount.wasm
