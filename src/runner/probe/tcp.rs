//! A TCP connection is accepted. Nothing is sent; the connection is closed in good order.

use super::connect::Endpoint;
use super::{Kind, Run, Target};

pub(super) struct Tcp(Endpoint);

impl Tcp {
    pub(super) fn new(host: &str, port: u16) -> Result<Self, String> {
        Endpoint::new(host, port).map(Self)
    }
}

impl Kind for Tcp {
    fn run<'a>(&'a mut self, _target: &'a Target) -> Run<'a> {
        Box::pin(async move { Ok(self.0.accepts().await?) })
    }
}
