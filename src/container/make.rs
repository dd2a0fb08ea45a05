//! Making a container and starting it.

use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};

use super::body::Order;
use super::engine::{Engine, QUICK, SLOW};
use super::error::EngineError;
use crate::model::ContainerId;

impl Engine {
    /// Makes a container of this name.
    ///
    /// # Errors
    /// A conflict, where the name is taken.
    pub async fn create(
        &self,
        name: &str,
        platform: Option<&str>,
        order: &Order,
    ) -> Result<ContainerId, EngineError> {
        let mut options = CreateContainerOptionsBuilder::new().name(name);
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let (options, body) = (options.build(), order.body.clone());
        let made = self
            .ask("create", SLOW, async |client| client.create_container(Some(options), body).await)
            .await?;
        Ok(ContainerId::new(&made.id))
    }

    /// Connects a container to its further networks and starts it.
    pub async fn start(&self, id: &ContainerId, order: &Order) -> Result<(), EngineError> {
        for (network, endpoint) in &order.further {
            let request = NetworkConnectRequest {
                container: id.as_str().to_owned(),
                endpoint_config: Some(endpoint.clone()),
            };
            self.ask("connect the network", QUICK, async |client| {
                client.connect_network(network, request).await
            })
            .await?;
        }
        self.ask("start", SLOW, async |client| {
            client.start_container(id.as_str(), None::<StartContainerOptions>).await
        })
        .await
    }
}
