#!/bin/sh
# Builds starlark.wasm, packs it, and records of what.
#
#   modules/starlark/build.sh            builds, and rewrites the parts and SHA256SUMS
#   modules/starlark/build.sh --check    builds into a temporary folder and compares
#
# Another Go makes other bytes, so --check wants the same one, of which the first line of
# go.version is the name. go.starlark.net comes from the module proxy, by interpreter/go.sum.
#
# The collector stops the program while it works (gcstoptheworld): otherwise it divides its
# work by the clock, and the same script would take other fuel each time.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

(cd interpreter && GOOS=wasip1 GOARCH=wasm GOFLAGS= GOWORK=off GOWASM= \
  go build -buildmode=c-shared -trimpath -buildvcs=false \
  -ldflags='-s -w -buildid= -X=runtime.godebugDefault=gcstoptheworld=2' -o "$out/starlark.wasm" .)

sums() {
  sha256sum build.sh go.version interpreter/*.go interpreter/go.mod interpreter/go.sum
  find ../../guest-sdk/go -name '*.go' ! -name '*_test.go' | sort | xargs sha256sum
  (cd "$out" && sha256sum starlark.wasm)
}
if [ "${1:-}" = --check ]; then
  sums | diff - SHA256SUMS
  cat starlark.wasm.gz.* | gzip -dc | cmp - "$out/starlark.wasm"
else
  go env GOVERSION >go.version
  rm -f starlark.wasm.gz.*
  gzip -9nk "$out/starlark.wasm"
  split -a 1 -b 290000 -d "$out/starlark.wasm.gz" starlark.wasm.gz.
  sums >SHA256SUMS
fi
ls -l starlark.wasm.gz.*
