#!/bin/sh
# Builds rhai.wasm.gz.0 and so on, and records of what.
#
#   modules/rhai/build.sh                builds, and rewrites SHA256SUMS and toolchain
#   modules/rhai/build.sh --check        builds into a temporary folder and compares
#   modules/rhai/build.sh --toolchain    prints what it would be built with
#
# The compiler is the one that Debian calls rustc-web: circles-host module build says what
# else it takes, and makes the standard library of it. Another version makes other bytes;
# toolchain is that of ours. Rhai comes from crates.io, by Cargo.lock.
#
# Cargo names a crate by the folder that it is in, unless that is within the workspace's.
# So the SDK is put there, and the module is the same wherever this is.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C PATH="/usr/bin:$PATH"
unset RUSTUP_TOOLCHAIN
sdk=../../guest-sdk/rust

toolchain() {
  rustc --version
  wasm-ld --version
  sha256sum /usr/lib/wasm32-wasi/libc.a
}
if [ "${1:-}" = --toolchain ]; then
  toolchain
  exit
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir -p "$out/crate/sdk"
cp -r .cargo Cargo.lock build.rs src "$out/crate"
sed "s#$sdk#sdk#" Cargo.toml >"$out/crate/Cargo.toml"
grep -v '^\[workspace\]$' $sdk/Cargo.toml >"$out/crate/sdk/Cargo.toml"
cp -r $sdk/src "$out/crate/sdk"
go run ../../cmd/circles-host module build "$out/crate" -o "$out/rhai.wasm" >/dev/null

sums() {
  sha256sum build.sh toolchain Cargo.toml Cargo.lock .cargo/config.toml build.rs src/*.rs $sdk/Cargo.toml $sdk/src/*.rs
  (cd "$out" && sha256sum rhai.wasm)
}
if [ "${1:-}" = --check ]; then
  sums | diff SHA256SUMS -
  cat rhai.wasm.gz.* | gzip -dc | cmp - "$out/rhai.wasm"
else
  toolchain >toolchain
  rm -f rhai.wasm.gz.*
  gzip -9nk "$out/rhai.wasm"
  split -a 1 -b 290000 -d "$out/rhai.wasm.gz" rhai.wasm.gz.
  sums >SHA256SUMS
fi
ls -l rhai.wasm.gz.*
