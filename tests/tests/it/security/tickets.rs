//! Exchange tickets: forged ones, and good ones for something else.

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use tidemill_engine::peers::{ClusterToken, InClear, PeerChannel, Peers, Trust};
use tidemill_engine::secrets::Secret;
use tidemill_engine::wire::{Attempt, BlockRef, BlockTicket, TaskId};
use tidemill_tests::harness::{ProcessCluster, value};
use tonic::Code;

use super::secured::{EXCHANGES, Secured, TOKEN, channel};

fn ticket(executor: &str, run: &str) -> BlockTicket {
    let (task, attempt) = (Some(TaskId { stage: 0, index: 0 }), Some(Attempt { epoch: 1, counter: 1 }));
    let blocks = vec![BlockRef { task, attempt, want_footer: true, ..Default::default() }];
    BlockTicket { executor: executor.to_owned(), run: run.to_owned(), epoch: 1, blocks, ..Default::default() }
}

async fn asked(channel: PeerChannel, ticket: &BlockTicket) -> Code {
    let request = Ticket { ticket: ticket.encode_to_vec().into() };
    let answered = async {
        let mut messages = FlightServiceClient::new(channel).do_get(request).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    answered.await.map_or_else(|status| status.code(), |()| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_good_for_one_cluster_and_one_run() {
    let cluster = Secured::start(1).await;
    let mut root = cluster.client("root").await;
    let executor = value(&mut root, "SELECT executor_id FROM system.executors").await;
    let endpoint = value(&mut root, "SELECT endpoint FROM system.executors").await;
    assert!(endpoint.starts_with("https://"), "{endpoint}");
    let authorities = Some(std::fs::read(&cluster.authority.pem).expect("a certificate"));
    let trust = || Trust { authorities: authorities.clone(), ..Trust::default() };
    let of_cluster = |token: &str| {
        let token = ClusterToken::new(&Secret::new(token)).expect("a token");
        Peers::of_cluster(trust(), &token, InClear::Loopback)
    };
    let (ours, theirs) = (of_cluster(TOKEN), of_cluster("another-token-of-another-cluster"));
    let to_executor = |peers: &Peers| peers.open(&peers.endpoint(&endpoint).expect("an endpoint"));
    // It is signed, and the run is not known there: that far only who belongs to the cluster comes.
    let signed = ours.tickets().sign(ticket(&executor, "run-1"));
    assert_eq!(asked(to_executor(&ours), &signed).await, Code::DataLoss);
    let unsigned = ticket(&executor, "run-1");
    assert_eq!(asked(to_executor(&ours), &unsigned).await, Code::PermissionDenied);
    let forged = theirs.tickets().sign(ticket(&executor, "run-1"));
    assert_eq!(asked(to_executor(&ours), &forged).await, Code::PermissionDenied);
    // The same signature for another run, or another task.
    let replayed = BlockTicket { run: "run-2".to_owned(), ..signed.clone() };
    assert_eq!(asked(to_executor(&ours), &replayed).await, Code::PermissionDenied);
    let mut replayed = signed.clone();
    replayed.blocks[0].task = Some(TaskId { stage: 0, index: 1 });
    assert_eq!(asked(to_executor(&ours), &replayed).await, Code::PermissionDenied);
    // Who shows nothing, or another token, does not come so far.
    let nothing = Peers::new(trust(), Default::default(), InClear::Loopback);
    assert_eq!(asked(to_executor(&nothing), &signed).await, Code::Unauthenticated);
    assert_eq!(asked(to_executor(&theirs), &signed).await, Code::Unauthenticated);
    // Users read results, and no blocks.
    let mut of_user = FlightServiceClient::new(channel(&endpoint, &cluster.authority.pem).await);
    let mut request = tonic::Request::new(Ticket { ticket: signed.encode_to_vec().into() });
    let bearer = format!("Bearer {}", cluster.token("root")).parse().expect("a header");
    request.metadata_mut().insert("authorization", bearer);
    let refused = of_user.do_get(request).await.expect_err("a refusal");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_signed_where_nobody_gave_a_token() {
    let mut cluster = ProcessCluster::start(2, 1).await;
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, EXCHANGES).await, "100000");
    let executor = value(&mut client, "SELECT min(executor_id) FROM system.executors").await;
    let endpoint = format!("SELECT endpoint FROM system.executors WHERE executor_id = '{executor}'");
    let endpoint = value(&mut client, &endpoint).await;
    let peers = Peers::default();
    let channel = peers.open(&peers.endpoint(&endpoint).expect("an endpoint"));
    let own = ClusterToken::new(&Secret::new("a-token-that-is-my-own")).expect("a token");
    let own = Peers::of_cluster(Trust::default(), &own, InClear::Loopback);
    for forged in [ticket(&executor, "run-1"), own.tickets().sign(ticket(&executor, "run-1"))] {
        assert_eq!(asked(channel.clone(), &forged).await, Code::PermissionDenied);
    }
    // The key goes on with the executors.
    cluster.restart_coordinator();
    cluster.add_executor(1);
    cluster.wait_for_executors(3).await;
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, EXCHANGES).await, "100000");
}
