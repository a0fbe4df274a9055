#!/bin/sh
# Builds javascript.wasm.gz, and records of what.
#
#   guest-sdk/js/build.sh            builds, and rewrites SHA256SUMS
#   guest-sdk/js/build.sh --check    builds into a temporary folder and compares
#
# QuickJS-ng comes from crates.io, in the crate rquickjs-sys of which quickjs/Cargo.lock
# has the checksum: that takes cargo, and nothing is built with it. The compiler is that
# of modules/build.sh; another version makes other bytes.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
cc=${CC:-clang}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo vendor --locked --quiet --manifest-path quickjs/Cargo.toml "$out/vendor" >/dev/null
qjs=$out/vendor/rquickjs-sys/quickjs

flags="--target=wasm32-wasi -Oz -DNDEBUG -D_GNU_SOURCE -D_WASI_EMULATED_SIGNAL"
for f in quickjs libregexp libunicode dtoa; do
  $cc $flags -w -c "$qjs/$f.c" -o "$out/$f.o"
done
for f in javascript.c ../c/circles.c; do
  $cc $flags -std=gnu11 -Wall -Wextra -Werror -I../c -isystem "$qjs" -c $f -o "$out/$(basename $f .c).o"
done
$cc --target=wasm32-wasi -mexec-model=reactor "$out"/*.o -lwasi-emulated-signal -o "$out/javascript.wasm" \
  -Wl,--strip-all -Wl,--gc-sections -Wl,--export=circles_script -Wl,-z,stack-size=1048576
gzip -9n "$out/javascript.wasm"

sums() { sha256sum build.sh javascript.c quickjs/Cargo.toml quickjs/Cargo.lock ../c/circles.h ../c/circles.c "$@"; }
if [ "${1:-}" = --check ]; then
  cmp "$out/javascript.wasm.gz" javascript.wasm.gz
  sums javascript.wasm.gz | cmp - SHA256SUMS
else
  install -m 644 "$out/javascript.wasm.gz" .
  sums javascript.wasm.gz >SHA256SUMS
fi
ls -l javascript.wasm.gz
