#!/bin/sh
# Builds count.wasm beside its source. Needs Go 1.24 or newer, and no network.
set -eu
cd "$(dirname "$0")"
GOOS=wasip1 GOARCH=wasm GOFLAGS= GOWORK=off \
  go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o count.wasm .
cd ../..
go run ./modules/addmanifest modules/count/count.wasm modules/count/manifest.json
