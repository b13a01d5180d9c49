//! Downloads from a model hub over plain blocking HTTP.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use ureq::tls::{RootCerts, TlsConfig};

use super::known::{KnownFile, KnownModel};
use super::{ModelOptions, PullEvent, Watch, manifest};

/// How often a download is taken up again without a byte gained.
const RETRIES: u32 = 3;

/// Fetches every file of the model into `stage`; the error is a reason for a reader.
pub(crate) fn fetch(
    known: &KnownModel,
    hub: &str,
    options: &ModelOptions,
    stage: &Path,
    watch: Watch<'_>,
) -> Result<(), String> {
    let agent = agent(options)?;
    let total = known.bytes();
    let mut done = 0;
    for file in &known.files {
        let url = format!(
            "{}/{}/resolve/main/{}",
            hub.trim_end_matches('/'),
            known.repo,
            file.path
        );
        let mut progress = |have: u64| {
            watch(PullEvent::Bytes {
                done: done + have,
                total,
            });
        };
        let got = download(&agent, &url, file, stage, &mut progress)?;
        if !got && file.required {
            return Err(format!("`{url}` is not there (404)"));
        }
        done += file.size;
    }
    Ok(())
}

fn agent(options: &ModelOptions) -> Result<ureq::Agent, String> {
    let proxy = match options.proxy.as_deref().map(ureq::Proxy::new).transpose() {
        Ok(proxy) => proxy,
        Err(error) => return Err(format!("the proxy's address is not usable: {error}")),
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = ureq::Agent::config_builder()
        .user_agent(concat!("sela/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_recv_response(Some(options.stall_timeout))
        // Begins anew with every read; a limit on the whole body would break off a slow line.
        .timeout_per_read(Some(options.stall_timeout))
        .http_status_as_error(false)
        .proxy(proxy)
        .tls_config(tls)
        .build();
    Ok(config.into())
}

/// Fetches one file, taking up a part that is there; `false` when the hub does not have it.
fn download(
    agent: &ureq::Agent,
    url: &str,
    file: &KnownFile,
    stage: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, String> {
    let to = stage.join(&file.path);
    if to.is_file() && file.check(&to).is_ok() {
        progress(file.size);
        return Ok(true);
    }
    let part = stage.join(format!("{}.part", file.path));
    let local = |e: io::Error| format!("cannot write `{}`: {e}", part.display());
    manifest::create_parent(&part).map_err(local)?;
    if file.sha256.is_none() {
        // Without a hash to check the whole by, a part of an older copy must not be built upon.
        remove_if_there(&part).map_err(local)?;
    }
    let mut resumed = part.exists();
    loop {
        if !download_part(agent, url, &part, progress)? {
            return Ok(false);
        }
        match file.check(&part) {
            Ok(()) => break,
            // The part that was there may have been the bad one: once more from the start.
            Err(_) if resumed => resumed = false,
            Err(reason) => {
                remove_if_there(&part).map_err(local)?;
                return Err(reason);
            }
        }
        remove_if_there(&part).map_err(local)?;
    }
    fs::rename(&part, &to).map_err(local)?;
    Ok(true)
}

/// Appends to `part` until the hub says it is whole, however often the line breaks, as long as
/// each attempt brings something.
fn download_part(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, String> {
    let mut best = fs::metadata(part).map_or(0, |m| m.len());
    let mut fruitless = 0;
    loop {
        let why = match request(agent, url, part, progress) {
            Ok(outcome) => return Ok(outcome),
            Err(Stop::Fatal(reason)) => return Err(reason),
            Err(Stop::Broken(reason)) => reason,
        };
        let have = fs::metadata(part).map_or(0, |m| m.len());
        if have > best {
            best = have;
            fruitless = 0;
        } else {
            fruitless += 1;
        }
        if best == 0 || fruitless == RETRIES {
            return Err(why);
        }
    }
}

enum Stop {
    /// Another try would end in the same way.
    Fatal(String),
    /// The line broke; what has come is kept.
    Broken(String),
}

fn request(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, Stop> {
    let local = |e: io::Error| Stop::Fatal(format!("cannot write `{}`: {e}", part.display()));
    let mut have = fs::metadata(part).map_or(0, |m| m.len());
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| Stop::Broken(plain(&e)))?;
    match response.status().as_u16() {
        200 => have = 0,
        206 if starts_at(&response, have) => {}
        404 => return Ok(false),
        416 | 206 => {
            // Longer than the file, or another range than asked for: start again.
            remove_if_there(part).map_err(local)?;
            return Err(Stop::Broken(
                "the hub does not continue the download".to_owned(),
            ));
        }
        status => {
            let reason = response
                .status()
                .canonical_reason()
                .unwrap_or("no reason given");
            return Err(Stop::Fatal(format!("it answered {status} {reason}")));
        }
    }
    let mut file = File::options()
        .create(true)
        .write(true)
        .truncate(have == 0)
        .open(part)
        .map_err(local)?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(local)?;
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        progress(have);
        let n = reader
            .read(&mut buffer)
            .map_err(|e| Stop::Broken(format!("the line broke: {}", plain(&e.into()))))?;
        if n == 0 {
            return Ok(true);
        }
        file.write_all(&buffer[..n]).map_err(local)?;
        have += n as u64;
    }
}

fn starts_at<B>(response: &ureq::http::Response<B>, offset: u64) -> bool {
    let range = response
        .headers()
        .get("content-range")
        .and_then(|v| v.to_str().ok());
    range.is_some_and(|r| r.starts_with(&format!("bytes {offset}-")))
}

/// What a connection died of, without the library's own words where ours are plainer.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "its name cannot be resolved".to_owned(),
        ureq::Error::Timeout(ureq::Timeout::PerRead) => "it stood still for too long".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused".to_owned()
        }
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
