//! The page at `/docs`: it reads `/openapi.json` and nothing else, so it works without a network.

/// The page.
pub(crate) const PAGE: &str = include_str!("docs/page.html");

/// What the page may do: its own script and style, and questions to this server.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
