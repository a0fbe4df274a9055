#!/bin/sh
# Builds javascript.wasm.gz, and records of what.
#
#   modules/javascript/build.sh            builds, and rewrites SHA256SUMS
#   modules/javascript/build.sh --check    builds into a temporary folder and compares
#
# The interpreter and the compiler are those of guest-sdk/js/build.sh, which says more.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
cc=${CC:-clang}
sdk=../../guest-sdk
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo vendor --locked --quiet --manifest-path $sdk/js/quickjs/Cargo.toml "$out/vendor" >/dev/null
qjs=$out/vendor/rquickjs-sys/quickjs

# bytes FILE NAME: the file, as a text of C's.
bytes() {
  printf 'static const char %s[] = {' "$2"
  od -An -v -tx1 "$1" | sed 's/ \(..\)/0x\1,/g'
  printf '0};\n'
}
{ bytes $sdk/js/circles.js circles_js; bytes language.js language_js; } >"$out/made.h"

flags="--target=wasm32-wasi -Oz -DNDEBUG -D_GNU_SOURCE -D_WASI_EMULATED_SIGNAL"
for f in quickjs libregexp libunicode dtoa; do
  $cc $flags -w -c "$qjs/$f.c" -o "$out/$f.o"
done
for f in language.c $sdk/c/circles.c; do
  $cc $flags -std=gnu11 -Wall -Wextra -Werror -I$sdk/c -I"$out" -isystem "$qjs" -c "$f" -o "$out/$(basename "$f" .c).o"
done
$cc --target=wasm32-wasi -mexec-model=reactor "$out"/*.o -lwasi-emulated-signal -o "$out/javascript.wasm" \
  -Wl,--strip-all -Wl,--gc-sections -Wl,-z,stack-size=1048576
gzip -9nk "$out/javascript.wasm"

sums() {
  sha256sum build.sh language.c language.js $sdk/js/javascript.c $sdk/js/circles.js \
    $sdk/js/quickjs/Cargo.toml $sdk/js/quickjs/Cargo.lock $sdk/c/circles.h $sdk/c/circles.c
  (cd "$out" && sha256sum javascript.wasm javascript.wasm.gz)
}
if [ "${1:-}" = --check ]; then
  cmp "$out/javascript.wasm.gz" javascript.wasm.gz
  sums | cmp - SHA256SUMS
else
  install -m 644 "$out/javascript.wasm.gz" .
  sums >SHA256SUMS
fi
ls -l javascript.wasm.gz
