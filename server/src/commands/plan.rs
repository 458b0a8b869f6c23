//! `understudy plan`: measures a server, one of its own if none is named, and says how many are
//! needed.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::CommandError;

/// Say from a short measurement what this machine holds, and how many replicas a number of users
/// needs.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub plan: load::PlanArgs,
    /// A server that runs, instead of one started for this.
    #[arg(long, value_name = "URL", conflicts_with = "serve")]
    pub base_url: Option<String>,
    /// Key to send as a bearer token to --base-url.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// What to serve, and flags of `serve`, after `--`; without them, the demo model.
    #[arg(last = true, value_name = "MODEL AND FLAGS OF SERVE")]
    pub serve: Vec<String>,
}

impl PlanArgs {
    /// Measures and plans; what is to be printed.
    pub fn run(self) -> Result<String, CommandError> {
        if let Some(url) = &self.base_url {
            return Ok(load::plan(&self.plan, url, self.api_key.clone())?);
        }
        let server = Server::start(&self.serve)?;
        Ok(load::plan(&self.plan, &server.url, None)?)
    }
}

/// This binary, serving on a free port; it ends with this value.
struct Server {
    child: Child,
    url: String,
    /// Kept open, so that the server can say what it has to say.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(flags: &[String]) -> Result<Self, CommandError> {
        let failed = |message: String| CommandError::Server { message };
        let io = |error: std::io::Error| failed(error.to_string());
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.arg("serve").args(flags).args(["--port", "0"]);
        // A line a request would say nothing here.
        command.env("RUST_LOG", "warn");
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(io)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(failed("its standard output is not there".to_owned()));
        };
        let mut server = Self {
            child,
            url: String::new(),
            stdout: BufReader::new(stdout),
        };
        let mut line = String::new();
        while server.stdout.read_line(&mut line).map_err(io)? > 0 {
            if let ["URL", url] = line.split_whitespace().collect::<Vec<_>>()[..] {
                url.clone_into(&mut server.url);
                return Ok(server);
            }
            line.clear();
        }
        Err(failed("its own words are above".to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
