//! Tokens of another issuer: HS256 by a shared secret, RS256 and ES256 by the issuer's public keys.
//!
//! The kind of key decides the algorithms it is tried with, never the token: a public key is no
//! secret of HS256, whatever the token's head says.

mod ring;

use std::fs;
use std::path::Path;

use axum::http::StatusCode;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::auth::{Caller, Role};
use crate::config::{ConfigError, Jwt as Settings};
use crate::error::ApiError;
use crate::watched::Watched;

/// Fewest bytes of a secret: as many as HS256's digest has.
const SECRET_MIN: usize = 32;
/// Most keys of a JWKS file.
const KEYS_MAX: usize = 64;

/// A key and the one algorithm it is for.
struct Issued {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Checks tokens.
pub(crate) struct Jwt {
    settings: Settings,
    secret: Option<Watched<Issued>>,
    fixed: Option<Issued>,
    issued: Option<Watched<Vec<Issued>>>,
}

impl Jwt {
    /// A checker, when an issuer's key is set.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Settings {
            secret,
            secret_file,
            jwks,
            ..
        } = settings;
        if secret.is_none() && secret_file.is_none() && jwks.is_none() {
            return Ok(None);
        }
        ring::install();
        let fixed = secret.as_ref().map(|secret| of_secret(secret.as_bytes()));
        let bad = |key: &'static str| move |reason: String| ConfigError::value(key, reason);
        let watch_secret = |path: &std::path::PathBuf| Watched::open(path, read_secret);
        let watch_jwks = |path: &std::path::PathBuf| Watched::open(path, read_jwks);
        Ok(Some(Self {
            settings: settings.clone(),
            fixed: fixed.transpose().map_err(bad("auth.jwt.secret"))?,
            secret: (secret_file.as_ref().map(watch_secret))
                .transpose()
                .map_err(bad("auth.jwt.secret_file"))?,
            issued: (jwks.as_ref().map(watch_jwks))
                .transpose()
                .map_err(bad("auth.jwt.jwks"))?,
        }))
    }

    /// The caller that a token speaks for.
    pub(crate) fn check(&self, token: &str) -> Result<Caller, ApiError> {
        let wrong = |reason: String| {
            ApiError::unauthorized(
                "wrong_token",
                format!("the token is not accepted: {reason}"),
            )
        };
        let head = decode_header(token).map_err(|e| wrong(e.to_string()))?;
        let mut refused = "no key here is for it".to_owned();
        let (secret, issued) = (
            self.secret.as_ref().map(Watched::get),
            self.issued.as_ref().map(Watched::get),
        );
        let keys = (self.fixed.iter())
            .chain(secret.as_deref())
            .chain(issued.iter().flat_map(|keys| keys.iter()));
        let meant = |key: &&Issued| match (&head.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        for key in keys.filter(|key| key.algorithm == head.alg).filter(meant) {
            let validation = self.validation(key.algorithm);
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return self.caller(&token.claims),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(wrong(refused))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway_s;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without one set, a token that is meant for somebody by name is refused.
        if let Some(audience) = &self.settings.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn caller(&self, claims: &Map<String, Value>) -> Result<Caller, ApiError> {
        let mut path = self.settings.role_claim.split('.');
        let first = path.next().and_then(|name| claims.get(name));
        let claim = path.fold(first, |at, name| at?.get(name));
        let words: Vec<&str> = match claim {
            Some(Value::String(words)) => words.split_whitespace().collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let role = |word: &&str| {
            let named = self.settings.roles.get(*word).copied();
            named.or_else(|| word.parse::<Role>().ok())
        };
        let Some(role) = words.iter().filter_map(role).max() else {
            let claim = &self.settings.role_claim;
            let detail = format!("the token's claim `{claim}` names no role");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "no_role", detail));
        };
        let subject = claims.get("sub").and_then(Value::as_str);
        let who = subject.unwrap_or("a token without a subject");
        let who: String = who.chars().take(100).collect();
        Ok(Caller {
            role,
            who: who.into(),
        })
    }

    /// Reads the files of keys now if they have changed.
    pub(crate) fn look(&self) {
        if let Some(secret) = &self.secret {
            secret.look();
        }
        if let Some(issued) = &self.issued {
            issued.look();
        }
    }
}

fn of_secret(secret: &[u8]) -> Result<Issued, String> {
    if secret.len() < SECRET_MIN {
        let bytes = secret.len();
        return Err(format!(
            "a secret of HS256 has at least {SECRET_MIN} bytes, and this one {bytes}"
        ));
    }
    Ok(Issued {
        id: None,
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(secret),
    })
}

fn read_secret(path: &Path) -> Result<Issued, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    of_secret(text.trim_ascii_end())
}

fn read_jwks(path: &Path) -> Result<Vec<Issued>, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    let set: JwkSet = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("it holds more than {KEYS_MAX} keys"));
    }
    let mut keys = Vec::new();
    for jwk in &set.keys {
        if let Some(algorithm) = algorithm_of(jwk) {
            let key = DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
            let id = jwk.common.key_id.clone();
            keys.push(Issued { id, algorithm, key });
        }
    }
    match keys.is_empty() {
        true => Err("it holds no key of RS256 or ES256".to_owned()),
        false => Ok(keys),
    }
}

/// What a public key is for; `None` for secrets, other curves, and keys of encryption.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    use jsonwebtoken::jwk::{KeyAlgorithm, PublicKeyUse};
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let fits = jwk.common.key_algorithm.is_none_or(|named| named == name);
    (signs && fits).then_some(algorithm)
}
