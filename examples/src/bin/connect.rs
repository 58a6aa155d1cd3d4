//! A session with a cluster elsewhere.
//!
//! ```sh
//! cargo run -p tidemill-examples --bin connect -- http://10.0.0.1:7878
//! cargo run -p tidemill-examples --bin connect
//! ```
//!
//! With a URL it uses that cluster; the second command has none, so this program starts a server first: itself, once more,
//! as the `tidemill` binary.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use datafusion::prelude::*;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(command) if command == "server" => Ok(tidemill::cli::main()),
        Some(url) => run(&url),
        None => {
            let server = Server::start()?;
            println!("started a server at {}", server.url);
            run(&server.url)
        }
    }
}

#[tokio::main]
async fn run(url: &str) -> Result<ExitCode, Box<dyn Error>> {
    // Several URLs, divided by commas, where coordinators stand by.
    let session = tidemill::connect(url).set("datafusion.execution.target_partitions", "4").start().await?;

    // SQL about the catalogue goes to the cluster: every client has this view from now on.
    session
        .sql("CREATE OR REPLACE VIEW measured AS SELECT value AS hour, sin(value / 4.0) * 10 AS degrees FROM range(0, 96)")
        .await?;
    // What is registered is this session's alone, and travels with the plans that read it.
    let rooms = dataframe!("room" => ["north", "south"], "offset" => [0.5, 4.0])?;
    session.register_table("rooms", rooms.into_view())?;

    let warm = session
        .table("measured")
        .await?
        .join_on(session.table("rooms").await?, JoinType::Inner, [lit(true)])?
        .with_column("felt", col("degrees") + col("offset"))?
        .filter(col("felt").gt(lit(9)))?
        .sort(vec![col("room").sort(true, true), col("hour").sort(true, true)])?;
    warm.show().await?;

    // Whoever else is connected sees what runs, and what ran.
    session.sql("SELECT executor_id, state, slots FROM system.executors").await?.show().await?;
    Ok(ExitCode::SUCCESS)
}

/// A server process, which ends with this one.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.args(["server", "--bind", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
        let lines = process.stdout.take().map(BufReader::new).ok_or("no output")?.lines();
        for line in lines {
            // `tidemill server is ready at http://127.0.0.1:40123; …`
            if let Some((_, address)) = line?.split_once("is ready at ") {
                let url = address.split(';').next().unwrap_or_default().trim().to_owned();
                return Ok(Self { process, url });
            }
        }
        Err("the server did not start".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
