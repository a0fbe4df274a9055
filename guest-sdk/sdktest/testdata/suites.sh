#!/bin/sh
# Builds the guests of the suite that are committed built, and records of what.
# Behaviour is what counts: another version of a compiler may make other bytes.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
for language in ${*:-rust zig cpp assemblyscript}; do
  (
    if [ -x "$language/prepare.sh" ]; then "$language/prepare.sh"; fi
    cd "$language/suite"
    go run github.com/circles-host/circles/cmd/circles-host module build . -o suite.wasm
    sdk=../../../../$language
    [ "$language" != cpp ] || sdk=../../../../c
    find . "$sdk" -type f ! -path '*/target/*' ! -path '*/node_modules/*' ! -path './circles/*' ! -name '.*' ! -name SHA256SUMS ! -path "$sdk/tests/*" | sort | xargs sha256sum >SHA256SUMS
  )
done

# The module of docs/abi.md.
(
  cd byhand
  go run github.com/circles-host/circles/cmd/circles-host module build . -o byhand.wasm
  sha256sum byhand.c byhand.wasm >SHA256SUMS
)
