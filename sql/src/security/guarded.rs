//! A service behind the gate: each call shows its headers there first, and goes on with who makes it, or is answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use tidemill_core::Result;
use tidemill_engine::peers::{AUTHORIZATION, CLUSTER_HEADER};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::gate::{Gate, Side};

/// A service behind a [`Gate`].
#[derive(Clone)]
pub struct Guarded<S> {
    pub(super) service: S,
    pub(super) gate: Gate,
    pub(super) side: Side,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        let (side, shown) = (self.side, Shown::of(&request));
        // The one that said that it is ready.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        Box::pin(async move {
            match gate.admit(side, shown).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    service.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// What a call shows.
pub(super) struct Shown {
    pub(super) address: Option<IpAddr>,
    pub(super) authorization: Option<Vec<u8>>,
    pub(super) cluster: Option<Vec<u8>>,
    pub(super) has_certificate: bool,
}

impl Shown {
    fn of(request: &http::Request<Body>) -> Self {
        let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes().to_vec());
        let tcp = request.extensions().get::<TcpConnectInfo>();
        let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let address = tcp.or_else(|| tls.map(TlsConnectInfo::get_ref)).and_then(TcpConnectInfo::remote_addr);
        Self {
            address: address.map(|address| address.ip()),
            authorization: header(AUTHORIZATION),
            cluster: header(CLUSTER_HEADER),
            // Which were checked when the connection was made.
            has_certificate: tls.and_then(TlsConnectInfo::peer_certs).is_some_and(|certs| !certs.is_empty()),
        }
    }
}
