# One verb for each intention; `just` lists them.

default:
    @just --list --unsorted

# Build the command, optimised
build:
    cargo build --release

# Get the model, index the Bible, ask it questions
demo:
    cargo run --release -- demo

# All tests, those with the real model included
test:
    cargo test --workspace

# Formatting, lints and the house test
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --quiet --package sela-cli --test house

# Licences, sources and known faults of what we build on
deny:
    cargo deny check

# Put the sources in order
format:
    cargo fmt --all

# Check vectors, search and storage on this machine
validate:
    cargo run --release -- validate

# Measure this machine
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# Measure this machine against other programs, see bench/README.md
peers *ARGS:
    cargo build --release
    python3 bench/peers.py {{ARGS}}

# Accept the new help and error texts after looking at them
snapshots:
    INSTA_UPDATE=always cargo test --package sela-cli --test help --test errors
    git diff --stat -- crates/sela-cli/tests/snapshots

# Everything that must hold before a change lands
ci:
    .ci/run
