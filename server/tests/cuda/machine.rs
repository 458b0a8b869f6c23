//! Servers on a machine with a simulated GPU, or with none.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// A micro checkpoint; those without a tokenizer borrow one of as many tokens.
pub(crate) fn model(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for from in ["llama31-gqa", name] {
        for entry in fs::read_dir(fixtures().join("models").join(from)).unwrap() {
            let entry = entry.unwrap();
            let file = entry.file_name().into_string().unwrap();
            let is_own = from == name;
            if !is_own && !file.starts_with("tokenizer") {
                continue;
            }
            let to = dir.path().join(file);
            if to.exists() {
                fs::remove_file(&to).unwrap();
            }
            symlink(entry.path(), to).unwrap();
        }
    }
    dir
}

/// Whether the GPU is a real one.
pub(crate) fn is_real() -> bool {
    std::env::var_os("UNDERSTUDY_TEST_GPU").is_some()
}

/// The folder that holds the stand-in under the driver's name, or a part of it.
fn driver(part: &str) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let built = own.parent().unwrap().join("libsimcuda.so");
        assert!(built.exists(), "{} was not built", built.display());
        let (alone, both) = (folder.path().join("alone"), folder.path().join("both"));
        for (folder, name) in [
            (&alone, "libcuda.so"),
            (&both, "libcuda.so"),
            (&both, "libnccl.so.2"),
        ] {
            fs::create_dir_all(folder).unwrap();
            symlink(&built, folder.join(name)).unwrap();
        }
        folder
    };
    FOLDER.get_or_init(make).path().join(part)
}

/// How a server is started.
pub(crate) struct Setup {
    command: Command,
    /// Faults to inject, reports of faults found, and a line for each launch.
    files: TempDir,
    has_gpu: bool,
}

impl Setup {
    /// On a machine without a driver, if the GPU is a simulated one.
    pub(crate) fn without_gpu(model: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("SIMCUDA_")) {
            command.env_remove(key);
        }
        command
            .args(["serve", "--port", "0"])
            .arg(model)
            .args(["--threads", "1", "--served-model-name", "base"])
            .args(args)
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("LD_LIBRARY_PATH");
        Self {
            command,
            files: tempfile::tempdir().unwrap(),
            has_gpu: false,
        }
    }

    /// On a machine with a GPU.
    pub(crate) fn with_gpu(model: &Path, args: &[&str]) -> Self {
        let mut setup = Self::without_gpu(model, args);
        setup.has_gpu = true;
        if is_real() {
            // Drivers are not always where the system looks, and a simulated one may stand for them.
            for name in ["LD_LIBRARY_PATH", "SIMCUDA_MEMORY_MIB"] {
                if let Some(value) = std::env::var_os(name) {
                    setup.command.env(name, value);
                }
            }
            return setup;
        }
        setup.command.env("LD_LIBRARY_PATH", driver("both"));
        setup.command.env("SIMCUDA_MEMORY_MIB", "4096");
        for name in ["CONTROL", "REPORT", "TRACE"] {
            let path = setup.file(name);
            setup.command.env(format!("SIMCUDA_{name}"), path);
        }
        setup
    }

    /// On a machine with the driver, but without NCCL.
    pub(crate) fn without_nccl(self) -> Self {
        let alone = driver("alone");
        self.env("LD_LIBRARY_PATH", alone.to_str().unwrap())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Injects faults from the beginning on.
    pub(crate) fn faults(self, text: &str) -> Self {
        fs::write(self.file("CONTROL"), text).unwrap();
        self
    }

    /// Runs it to its end.
    pub(crate) fn output(mut self) -> Output {
        self.command.output().unwrap()
    }

    pub(crate) fn start(mut self) -> Server {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !banner.contains("Try it") {
            if lines.read_line(&mut banner).unwrap() == 0 {
                let mut error = String::new();
                let mut stderr = child.stderr.take().unwrap();
                stderr.read_to_string(&mut error).unwrap();
                panic!("the server did not start: {error}");
            }
        }
        let url = banner.split("http://").nth(1).unwrap();
        let address = url.split('/').next().unwrap().to_owned();
        Server {
            child,
            setup: self,
            banner,
            address,
        }
    }
}

/// A server that runs; it is ended when dropped.
pub(crate) struct Server {
    child: Child,
    setup: Setup,
    pub(crate) banner: String,
    address: String,
}

impl Server {
    /// Status and body of an answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, &body.to_string())
    }

    /// Status and body of an answer.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "")
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.exchange(method, path, body);
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        // A body of known length, or in chunks: what is between the first and last brace.
        let (from, to) = (body.find('{').unwrap(), body.rfind('}').unwrap());
        (status, serde_json::from_str(&body[from..=to]).unwrap())
    }

    /// An answer with its head.
    pub(crate) fn text(&self, path: &str) -> String {
        self.exchange("GET", path, "")
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Injects faults from now on.
    pub(crate) fn inject(&self, text: &str) {
        fs::write(self.setup.file("CONTROL"), text).unwrap();
    }

    /// A line for each launch so far.
    pub(crate) fn trace(&self) -> String {
        fs::read_to_string(self.setup.file("TRACE")).unwrap_or_default()
    }

    /// Ends it and gives what it wrote to standard error.
    pub(crate) fn end(mut self) -> String {
        self.child.kill().unwrap();
        let mut error = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut error).unwrap();
        error
    }

    /// Ends it; the simulator has found nothing wrong.
    pub(crate) fn end_clean(self) {
        assert!(self.setup.has_gpu);
        let report = self.setup.file("REPORT");
        let found = fs::read_to_string(report).unwrap_or_default();
        assert_eq!(found, "", "{}", self.end());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
