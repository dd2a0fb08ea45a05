//! What containers need beside their image: networks and volumes. Made if they are not there, never removed
//! without being asked.
//!
//! Failure paths: an external one that is not there is an error. Of several containers that want the same new
//! one at the same time, the first makes it and the others find it there.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    InspectNetworkOptions, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};

use super::engine::{Engine, QUICK, SLOW};
use super::error::EngineError;
use super::identity::{COMPONENT, HOME, PROJECT, volume_name};
use super::look::Ours;
use crate::model::InstanceId;
use crate::model::container::{
    ContainerSpec, MountSource, NetworkDeclaration, NetworkSpec, VolumeSpec,
};

/// Why something that a container needs is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanting {
    /// The engine refuses or is not there.
    Engine(EngineError),
    /// It was declared as made by others, and nobody has.
    External {
        /// In plain words.
        message: String,
        /// What to type.
        hint: String,
    },
}

impl From<EngineError> for Wanting {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Sees to it that networks and volumes are there.
pub async fn provide(
    engine: &Engine,
    instance: &InstanceId,
    spec: &ContainerSpec,
    wanted_by_image: &[String],
) -> Result<(), Wanting> {
    let _turn = engine.providing().await;
    if let NetworkSpec::Networks(attachments) = &spec.network {
        for attachment in attachments {
            network(engine, instance, &attachment.network).await?;
        }
    }
    for (target, mount) in &spec.volumes {
        match &mount.source {
            MountSource::Volume { volume: declared, .. } => {
                volume(engine, instance, declared).await?;
            }
            MountSource::Anonymous { .. } => anonymous(engine, instance, target).await?,
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => {}
        }
    }
    for target in wanted_by_image.iter().filter(|target| !spec.volumes.contains_key(*target)) {
        anonymous(engine, instance, target).await?;
    }
    Ok(())
}

fn labels(
    engine: &Engine,
    instance: &InstanceId,
    declared: &std::collections::BTreeMap<String, String>,
) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = declared.clone().into_iter().collect();
    labels.insert(HOME.to_owned(), engine.home().to_owned());
    labels.insert(PROJECT.to_owned(), instance.project.to_string());
    labels
}

async fn network(
    engine: &Engine,
    instance: &InstanceId,
    declared: &NetworkDeclaration,
) -> Result<(), Wanting> {
    let name = declared.name.as_str();
    let looked = engine
        .ask("inspect the network", QUICK, async |client| {
            client.inspect_network(name, None::<InspectNetworkOptions>).await
        })
        .await;
    match looked {
        Ok(_) => return Ok(()),
        Err(error) if error.is_absence() => {}
        Err(error) => return Err(error.into()),
    }
    if declared.external {
        return Err(Wanting::External {
            message: format!("the external network {name} is not there"),
            hint: format!("make it: `docker network create {name}`, or take `external` out"),
        });
    }
    let config: Vec<IpamConfig> = declared
        .subnets
        .iter()
        .map(|(subnet, gateway)| IpamConfig {
            subnet: Some(subnet.clone()),
            gateway: gateway.clone(),
            ..IpamConfig::default()
        })
        .collect();
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: declared.driver.clone(),
        internal: Some(declared.internal),
        attachable: Some(declared.attachable),
        enable_ipv6: Some(declared.enable_ipv6),
        ipam: (!config.is_empty()).then(|| Ipam { config: Some(config), ..Ipam::default() }),
        options: Some(declared.driver_opts.clone().into_iter().collect()),
        labels: Some(labels(engine, instance, &declared.labels)),
        ..NetworkCreateRequest::default()
    };
    let made = engine
        .ask("create the network", SLOW, async |client| client.create_network(request).await)
        .await;
    match made {
        Err(error) if !error.is_conflict() => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn volume(
    engine: &Engine,
    instance: &InstanceId,
    declared: &VolumeSpec,
) -> Result<(), Wanting> {
    let name = declared.name.as_str();
    if declared.external {
        let looked = engine
            .ask("inspect the volume", QUICK, async |client| client.inspect_volume(name).await)
            .await;
        return match looked {
            Ok(_) => Ok(()),
            Err(error) if error.is_absence() => Err(Wanting::External {
                message: format!("the external volume {name} is not there"),
                hint: format!("make it: `docker volume create {name}`, or take `external` out"),
            }),
            Err(error) => Err(error.into()),
        };
    }
    let request = VolumeCreateRequest {
        name: Some(name.to_owned()),
        driver: declared.driver.clone(),
        driver_opts: Some(declared.driver_opts.clone().into_iter().collect()),
        labels: Some(labels(engine, instance, &declared.labels)),
        ..VolumeCreateRequest::default()
    };
    create_volume(engine, request).await
}

/// A volume without a name belongs to the instance, and is found again by its own name.
async fn anonymous(engine: &Engine, instance: &InstanceId, target: &str) -> Result<(), Wanting> {
    let mut labels = labels(engine, instance, &std::collections::BTreeMap::new());
    labels.insert(COMPONENT.to_owned(), instance.component.to_string());
    let request = VolumeCreateRequest {
        name: Some(volume_name(instance, target)),
        labels: Some(labels),
        ..VolumeCreateRequest::default()
    };
    create_volume(engine, request).await
}

/// Makes a volume; one that is there stays as it is.
async fn create_volume(engine: &Engine, request: VolumeCreateRequest) -> Result<(), Wanting> {
    let made = engine
        .ask("create the volume", SLOW, async |client| client.create_volume(request).await)
        .await;
    Ok(made.map(drop)?)
}

/// Removes the networks that were made for a project and that nobody uses, and containers that nobody has
/// removed, because the machine was rebooted before; with `volumes`, its volumes as well. Gives what was removed.
pub async fn clear(
    engine: &Engine,
    project: &str,
    volumes: bool,
) -> Result<Vec<String>, EngineError> {
    // Nobody may be watching any more.
    engine.connect().await?;
    let _turn = engine.providing().await;
    let ours = vec![format!("{HOME}={}", engine.home()), format!("{PROJECT}={project}")];
    let filters = HashMap::from([("label", ours)]);
    let mut removed = Vec::new();
    // Those that run belong to a project that was applied again meanwhile.
    for (container, identity) in engine.ours(Ours::Ended(project)).await? {
        match engine.remove(&container).await {
            Ok(()) => removed.push(format!("container of {}", identity.instance)),
            Err(error) if error.is_engine() => return Err(error),
            Err(error) => tracing::warn!(%container, %error, "it stays"),
        }
    }
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = engine
        .ask("list the networks", QUICK, async |client| client.list_networks(Some(options)).await)
        .await?;
    for name in networks.into_iter().filter_map(|network| network.name) {
        let gone = engine
            .ask("remove the network", SLOW, async |client| client.remove_network(&name).await)
            .await;
        match gone {
            Ok(()) => removed.push(format!("network {name}")),
            Err(error) if error.is_engine() => return Err(error),
            // Others are connected to it.
            Err(_) => {}
        }
    }
    if !volumes {
        return Ok(removed);
    }
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let listed = engine
        .ask("list the volumes", QUICK, async |client| client.list_volumes(Some(options)).await)
        .await?;
    for volume in listed.volumes.unwrap_or_default() {
        let options = RemoveVolumeOptionsBuilder::new().force(false).build();
        let gone = engine
            .ask("remove the volume", SLOW, async |client| {
                client.remove_volume(&volume.name, Some(options)).await
            })
            .await;
        match gone {
            Ok(()) => removed.push(format!("volume {}", volume.name)),
            Err(error) if error.is_engine() => return Err(error),
            Err(error) => tracing::warn!("the volume {} stays: {error}", volume.name),
        }
    }
    Ok(removed)
}
