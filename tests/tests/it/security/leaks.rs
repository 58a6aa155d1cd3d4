//! No secret is in anything that the processes write, or say.

use std::path::Path;

use tidemill::client::Client;
use tidemill_engine::peers::{CLUSTER_HEADER, ClusterToken, Credential};
use tidemill_engine::secrets::Secret;
use tidemill_tests::harness::value;
use tonic::Request;
use tonic::service::Interceptor;

use super::secured::{EXCHANGES, PASSWORD, Secured, TOKEN};

/// Carl's name and password in the header of a call.
const CARL_IN_BASE64: &str = "Y2FybDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=";

/// Looks for secrets in all files below a folder, but for those that are to hold them.
fn search(folder: &Path, secrets: &[String], found: &mut Vec<String>, searched: &mut usize) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            search(&path, secrets, found, searched);
        } else if !name.ends_with(".key") && !name.ends_with(".token") {
            // Files of executors come and go.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            *searched += 1;
            let hidden = secrets.iter().filter(|s| bytes.windows(s.len()).any(|part| part == s.as_bytes()));
            found.extend(hidden.map(|secret| format!("{}: {secret}", path.display())));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_file_history_or_error() {
    let log = [("TIDEMILL_LOG", "debug".to_owned())];
    let mut cluster = Secured::start_with(2, &log).await;
    let guess = "tmu_a-guess-that-is-wrong-but-secret";
    let key = std::fs::read_to_string(cluster.path("cluster.key")).expect("a key");
    let key = key.lines().nth(1).expect("a line of the key").to_owned();
    let mut secrets = vec![TOKEN.to_owned(), PASSWORD.to_owned(), guess.to_owned(), key];
    secrets.extend(cluster.tokens().cloned());
    // As they travel.
    secrets.push(CARL_IN_BASE64.to_owned());
    let token = ClusterToken::new(&Secret::new(TOKEN)).expect("a token");
    let call = Credential::cluster(&token).call(Request::new(())).expect("a call");
    let shown = call.metadata().get(CLUSTER_HEADER).expect("a header").to_str().expect("text");
    secrets.push(shown.to_owned());
    let mut ann = cluster.client("ann").await;
    assert_eq!(value(&mut ann, EXCHANGES).await, "100000");
    let mut errors = Vec::new();
    let copy = format!("COPY (SELECT 1 AS x) TO '{}/x.csv'", cluster.path("data"));
    ann.query(&copy).await.expect("a run").collect().await.expect("a file");
    let carl = cluster.url().replace("https://", "https://carl:correct%20horse%20battery@");
    let by_password = Client::connect_with(&carl, &cluster.access(None)).await.expect("a client");
    errors.extend(by_password.query("SELECT nothing").await.err());
    errors.extend(by_password.query(&copy).await.err());
    let mut flight = cluster.flight_sql().await;
    flight.handshake("carl", PASSWORD).await.expect("a pass");
    secrets.push(flight.token().expect("a pass").clone());
    let guessed = Client::connect_with(&cluster.url(), &cluster.access(Some(guess))).await.expect("a client");
    errors.extend(guessed.query("SELECT 1").await.err());
    let unknown = cluster.url().replace("https://", &format!("https://eve:{guess}@"));
    let unknown = Client::connect_with(&unknown, &cluster.access(None)).await.expect("a client");
    errors.extend(unknown.query("SELECT 1").await.err());
    let nowhere = format!("https://eve:{guess}@127.0.0.1:1");
    errors.extend(Client::connect_with(&nowhere, &cluster.access(None)).await.err());
    errors.extend(Client::connect(&format!("http://eve:{guess}@10.0.0.1:1")).await.err());
    assert_eq!(errors.len(), 6, "{errors:?}");
    cluster.restart_coordinator();
    cluster.wait_for_executors(2).await;
    let mut root = cluster.client("root").await;
    let history = "SELECT string_agg(statement, ' ') || coalesce(string_agg(error, ' '), '') FROM system.runs";
    let history = value(&mut root, history).await;
    let mut said = vec![history, cluster.coordinator.ready.clone(), cluster.coordinator.said()];
    said.extend(cluster.executors.iter().flat_map(|executor| [executor.ready.clone(), executor.said()]));
    said.extend(errors.iter().map(|error| format!("{error} {error:?}")));
    assert!(said.iter().any(|text| text.len() > 10_000), "nothing was logged");
    for secret in &secrets {
        let shown = said.iter().find(|text| text.contains(secret));
        assert!(shown.is_none(), "{secret} is shown");
    }
    let (mut found, mut searched) = (Vec::new(), 0);
    search(cluster.folder.path(), &secrets, &mut found, &mut searched);
    assert!(found.is_empty(), "{found:?}");
    assert!(searched > 5, "only {searched} files were searched");
}
