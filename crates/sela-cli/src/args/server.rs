//! Flags of the commands about the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The settings file [default: `sela.toml` in the home, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Ask for no keys: everybody who reaches the address may do everything. Only on this machine
    #[arg(long)]
    pub(crate) no_auth: bool,
    /// The certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How the log is written: text, json [default: text]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// Any setting, such as limits.k_max=50; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Print all settings as they would be used, with what each means, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err("write KEY=VALUE".to_owned()),
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    /// As settings write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and print it; it cannot be printed again
    Create {
        /// What the key allows: read, write, admin
        #[arg(long, value_name = "ROLE", hide_possible_values = true)]
        role: Role,
        /// What to call it
        #[arg(long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        keys: Keys,
    },
    /// List the keys, without the keys themselves
    List(Keys),
    /// Take a key away; a running server notices within a second
    Revoke {
        /// The key's id or name
        #[arg(value_name = "ID|NAME")]
        key: String,
        #[command(flatten)]
        keys: Keys,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Keys {
    /// The server's settings file [default: `sela.toml` in the home, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Read,
    Write,
    Admin,
}

impl From<Role> for sela_server::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Read => Self::Read,
            Role::Write => Self::Write,
            Role::Admin => Self::Admin,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Ask nothing: take what flags say, and else the defaults
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where the server is to listen [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Do not fetch the model now
    #[arg(long)]
    pub(crate) no_model: bool,
    /// Make no key
    #[arg(long)]
    pub(crate) no_key: bool,
    /// Replace a settings file that is there
    #[arg(long)]
    pub(crate) force: bool,
}
