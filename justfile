# One verb per intention.

# Everything that must hold before a change lands.
ci:
    .ci/run

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; the model is fetched when it is missing.
test:
    cargo test --workspace

# The King James Bible, and questions to it.
demo:
    cargo run --release -- demo

# Licences, advisories, sources (needs cargo-deny).
deny:
    cargo deny check

# The rivals and ours in turn (see bench/README.md).
bench *ARGS:
    cargo build --release
    python3 bench/peers.py --sela target/release/sela {{ARGS}}
