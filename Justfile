# Recipes for those who work on circles. Each is one command that also works
# without just; CONTRIBUTING.md says where things are.

set shell := ["bash", "-euo", "pipefail", "-c"]

# what there is
[private]
default:
    @just --list --unsorted

# the whole path of a script: two peers, a refusal, a permit, receipts
demo:
    go run ./cmd/circles-host run --demo --once

# every test, with the race detector; packages to narrow it
test *packages="./...":
    go test -race {{ packages }}

# the second engine, which needs cgo: the engine's tests, and both against each other
wasmtime:
    .ci/run wasmtime

# gofmt, vet, golangci-lint with the import directions
lint:
    .ci/run format vet lint

# each fuzz target in turn, for TIME each
fuzz time="5s":
    FUZZTIME={{ time }} .ci/run fuzz

# everything that is generated; the generators are pinned where they are named
generate:
    go generate ./...

# what scripts cost on this machine, each figure beside its floor, and beside Extism; sections to narrow it
bench *sections:
    go run ./cmd/circles-host bench --report bench.json {{ sections }}
    cd testdata/bench/extism && go test -run '^$' -bench . -benchtime 500x

# measure, and put the table into the guide on performance
performance:
    go run ./cmd/circles-host bench --markdown --report bench.json >bench.md
    sed -i -e '/^<!-- measured -->$/,/^<!-- end -->$/{//!d}' -e '/^<!-- measured -->$/r bench.md' cmd/circles-host/docs/performance.md
    rm bench.md

# benchmarks of PACKAGES, with allocations; pipe two runs into benchstat to compare
benchmarks packages="./host/..." pattern="." count="1":
    go test -run '^$' -bench '{{ pattern }}' -benchmem -count {{ count }} {{ packages }}

# the modules and test guests in C, and what they were built from
modules:
    modules/build.sh
    guest-sdk/sdktest/testdata/build.sh

# what must hold before a change lands; steps to narrow it
ci *steps:
    .ci/run {{ steps }}

# long: each fuzz target for TIME, stores killed 1,000 times each, and the tests ROUNDS times in random order
nightly time="10m" rounds="20":
    FUZZTIME={{ time }} .ci/run fuzz
    CRASH_ROUNDS=1000 go test -run 'Kill$|Crash$' -timeout 2h ./host/store/...
    RESIDUAL_CASES=100000 go test -run Residual ./host/policy
    go test -race -count {{ rounds }} -shuffle on -timeout 6h ./...
