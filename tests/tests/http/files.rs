//! Uploaded files.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use tempfile::TempDir;
use understudy::files::FilesOptions;
use understudy::handlers::UnknownParams;

use crate::errors::check;
use crate::server::{Answer, Options, Server};

const PURPOSE: (&str, &str) = ("purpose", "batch");
const ANCHOR: (&str, &str) = ("expires_after[anchor]", "created_at");

struct Files {
    server: Server,
    dir: TempDir,
}

impl Files {
    fn start(sizes: FilesOptions, unknown_params: UnknownParams) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Options {
            files: Some((dir.path().to_owned(), sizes)),
            keys: vec!["sk-one", "sk-other"],
            unknown_params,
            max_body_bytes: 1000,
            ..Options::default()
        });
        Self { server, dir }
    }

    async fn ask(&self, method: Method, path: &str, key: &str) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {key}"));
        self.server.call(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "sk-one").await
    }

    async fn upload(&self, fields: &[(&str, &str)], file: Option<&str>) -> Answer {
        self.send(form(fields, file), "multipart/form-data; boundary=XX")
            .await
    }

    async fn send(&self, form: String, kind: &str) -> Answer {
        let request = Request::post("/v1/files").header("content-type", kind);
        let request = request.header("authorization", "Bearer sk-one");
        self.server
            .call(request.body(Body::from(form)).unwrap())
            .await
    }

    /// Names of what lies on the disk.
    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("files")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        entries.map(name).collect()
    }
}

/// A form as the Node SDK sends it: the file first.
fn form(fields: &[(&str, &str)], file: Option<&str>) -> String {
    let mut form = String::new();
    if let Some(file) = file {
        form += "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \u{fc}.txt\"\r\n\
                 Content-Type: text/plain\r\n\r\n";
        form += file;
        form += "\r\n";
    }
    for (name, value) in fields {
        form += "--XX\r\nContent-Disposition: form-data; name=\"";
        form += &format!("{name}\"\r\n\r\n{value}\r\n");
    }
    form + "--XX--\r\n"
}

fn ids(list: &Value) -> Vec<&str> {
    let files = list["data"].as_array().unwrap();
    files
        .iter()
        .map(|file| file["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_file_is_there_as_it_came_for_its_owner_only() {
    let files = Files::start(FilesOptions::default(), UnknownParams::Refuse);
    // More than other bodies may have.
    let text = "line\r\n--X\r\n".repeat(1000);
    let made = files.upload(&[PURPOSE], Some(&text)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = made.json();
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("file-"), "{id}");
    assert_eq!(made["bytes"], text.len());
    assert_eq!(made["filename"], "a \u{fc}.txt");
    assert_eq!(
        (&made["object"], &made["purpose"]),
        (&json!("file"), &json!("batch"))
    );
    let (path, content) = (format!("/v1/files/{id}"), format!("/v1/files/{id}/content"));
    assert_eq!(files.get(&path).await.json(), made);
    let read = files.get(&content).await;
    assert_eq!(read.text, text);
    assert_eq!(
        read.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(
        read.header("content-length"),
        Some(text.len().to_string().as_str())
    );
    let disposition = read.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename=\"a _.txt\""));
    for (method, path) in [
        (Method::GET, &path),
        (Method::GET, &content),
        (Method::DELETE, &path),
    ] {
        let answer = files.ask(method, path, "sk-other").await;
        check(&answer, 404, None, None, "File with id");
    }
    let others = files.ask(Method::GET, "/v1/files", "sk-other").await.json();
    assert_eq!(others["data"], json!([]));
    assert_eq!(files.kept(), [id]);
    let metrics = files.get("/metrics").await.text;
    assert!(metrics.contains("understudy_file_bytes 15096"), "{metrics}");
    let deleted = files.ask(Method::DELETE, &path, "sk-one").await.json();
    assert_eq!(
        deleted,
        json!({"id": id, "object": "file", "deleted": true})
    );
    for path in [&path, &content] {
        check(&files.get(path).await, 404, None, None, "File with id");
    }
    assert!(files.kept().is_empty());
}

#[tokio::test]
async fn files_are_listed_by_pages_and_purposes() {
    let files = Files::start(FilesOptions::default(), UnknownParams::Refuse);
    let mut made = Vec::new();
    for purpose in ["batch", "user_data", "batch"] {
        let answer = files
            .upload(&[("purpose", purpose)], Some("x"))
            .await
            .json();
        made.insert(0, answer["id"].as_str().unwrap().to_owned());
    }
    let all = files.get("/v1/files").await.json();
    assert_eq!(ids(&all), made);
    assert_eq!(all["has_more"], false);
    let first = files.get("/v1/files?limit=2").await.json();
    assert_eq!((ids(&first).len(), &first["has_more"]), (2, &json!(true)));
    let rest = files
        .get(&format!("/v1/files?limit=2&after={}", made[1]))
        .await
        .json();
    assert_eq!(ids(&rest), [made[2].as_str()]);
    let batches = files.get("/v1/files?purpose=batch&order=asc").await.json();
    assert_eq!(ids(&batches), [made[2].as_str(), made[0].as_str()]);
    for (query, param) in [
        ("limit=10001", "limit"),
        ("purpose=fun", "purpose"),
        ("after=file-x", "after"),
        ("sort=up", "sort"),
    ] {
        let answer = files.get(&format!("/v1/files?{query}")).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param);
    }
}

/// Fields, a file, and the parameter at fault.
type Case = (
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
    &'static str,
);

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_named_and_leaves_nothing() {
    let files = Files::start(FilesOptions::default(), UnknownParams::Refuse);
    let cases: [Case; 6] = [
        (&[PURPOSE], None, "file"),
        (&[], Some("x"), "purpose"),
        (&[("purpose", "fun")], Some("x"), "purpose"),
        (&[PURPOSE, ("porpoise", "x")], Some("x"), "porpoise"),
        (&[PURPOSE, ANCHOR], Some("x"), "expires_after[seconds]"),
        (&[PURPOSE, ("file", "x")], None, "file"),
    ];
    for (fields, file, param) in cases {
        let answer = files.upload(fields, file).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param, "{}", answer.text);
    }
    let whole = form(&[PURPOSE], Some("x"));
    let half = whole.replace("--XX--", "");
    let twice = format!("{}{whole}", form(&[], Some("y")).replace("--XX--\r\n", ""));
    for (form, kind, words) in [
        (
            half,
            "multipart/form-data; boundary=XX",
            "before its last boundary",
        ),
        (twice, "multipart/form-data; boundary=XX", "more than once"),
        (whole.clone(), "multipart/form-data", "with a boundary"),
        (
            json!({}).to_string(),
            "application/json",
            "multipart/form-data",
        ),
    ] {
        let answer = files.send(form, kind).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(words), "{}", answer.text);
    }
    assert!(files.kept().is_empty());
    assert_eq!(files.get("/v1/files").await.json()["data"], json!([]));
    let warned = Files::start(FilesOptions::default(), UnknownParams::Warn);
    let answer = warned
        .upload(&[PURPOSE, ("porpoise", "x")], Some("x"))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn files_are_bounded_and_end() {
    let sizes = FilesOptions {
        max_file_bytes: 100,
        // Each file counts 4096 beside its own.
        max_bytes: 2 * 4096 + 150,
    };
    let files = Files::start(sizes, UnknownParams::Refuse);
    let large = files.upload(&[PURPOSE], Some(&"x".repeat(101))).await;
    check(
        &large,
        413,
        Some("file"),
        Some("file_too_large"),
        "at most 100 bytes",
    );
    let larger = files.upload(&[PURPOSE], Some(&"x".repeat(200_000))).await;
    assert_eq!(larger.status, 413);
    let ends = [PURPOSE, ANCHOR, ("expires_after[seconds]", "3600")];
    let kept = files.upload(&ends, Some(&"x".repeat(100))).await.json();
    let span = kept["expires_at"].as_u64().unwrap() - kept["created_at"].as_u64().unwrap();
    assert_eq!(span, 3600);
    let full = files.upload(&[PURPOSE], Some(&"x".repeat(51))).await;
    check(
        &full,
        507,
        Some("file"),
        Some("insufficient_storage"),
        "8342 bytes",
    );
    assert_eq!(full.header("x-should-retry"), Some("false"));
    let path = format!("/v1/files/{}", kept["id"].as_str().unwrap());
    assert_eq!(files.ask(Method::DELETE, &path, "sk-one").await.status, 200);
    assert_eq!(
        files.upload(&[PURPOSE], Some(&"x".repeat(51))).await.status,
        200
    );
}

#[tokio::test]
async fn a_server_without_a_directory_keeps_no_files() {
    let server = Server::start(Options::default());
    let answer = server.get("/v1/files").await;
    check(
        &answer,
        404,
        None,
        Some("unsupported_endpoint"),
        "--store-dir",
    );
}
