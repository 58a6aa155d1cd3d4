//! What a coordinator answers that does not lead: who does.

use std::convert::Infallible;
use std::future::Ready;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tidemill_engine::wire::LEADER_HEADER;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// In the place of service `S`.
pub(super) struct Refusal<S> {
    /// The address of the coordinator that leads, if one does.
    leader: watch::Receiver<Option<String>>,
    place: PhantomData<fn() -> S>,
}

impl<S> Refusal<S> {
    pub(super) const fn new(leader: watch::Receiver<Option<String>>) -> Self {
        Self { leader, place: PhantomData }
    }
}

// Also where the service cannot be cloned.
impl<S> Clone for Refusal<S> {
    fn clone(&self) -> Self {
        Self::new(self.leader.clone())
    }
}

impl<S: NamedService> NamedService for Refusal<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Refusal<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let refused = refused(self.leader.borrow().as_deref());
        std::future::ready(Ok(refused.into_http()))
    }
}

/// Without details: whoever knows another address tries it, as if nobody had answered.
fn refused(leader: Option<&str>) -> Status {
    let Some(leader) = leader else { return Status::unavailable("this coordinator does not lead yet: try again") };
    let mut status =
        Status::unavailable(format!("this coordinator stands by, and {leader} leads: connect to that one"));
    // An address has only characters that a header may have.
    if let Ok(address) = leader.parse() {
        status.metadata_mut().insert(LEADER_HEADER, address);
    }
    status
}
