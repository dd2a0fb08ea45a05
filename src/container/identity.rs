//! Whose a container is: names and labels.
//!
//! Labels say it for ever, whatever becomes of the daemon and its state. The label of the home folder keeps
//! daemons apart that share an engine; what is not of this home is never touched.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::model::container::{BuildSpec, ContainerSpec};
use crate::model::id::hex;
use crate::model::{InstanceId, RunId};

/// The label of the home folder.
pub const HOME: &str = "stigmer.home";
/// The label of the project.
pub const PROJECT: &str = "stigmer.project";
/// The label of the component.
pub const COMPONENT: &str = "stigmer.component";
/// The label of the replica.
pub const REPLICA: &str = "stigmer.replica";
/// The label of the run.
pub const RUN: &str = "stigmer.run";
/// The label of the digest of the spec.
pub const SPEC: &str = "stigmer.spec";
/// The label of the digest of what an image was built by.
pub const RECIPE: &str = "stigmer.build";

/// What a container's labels say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The home folder's identifier.
    pub home: String,
    /// Whose run it is.
    pub instance: InstanceId,
    /// The run.
    pub run: RunId,
    /// Over the spec that it was made by.
    pub digest: String,
}

impl Identity {
    /// As labels.
    #[must_use]
    pub fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (HOME.to_owned(), self.home.clone()),
            (PROJECT.to_owned(), self.instance.project.to_string()),
            (COMPONENT.to_owned(), self.instance.component.to_string()),
            (REPLICA.to_owned(), self.instance.replica.to_string()),
            (RUN.to_owned(), self.run.to_string()),
            (SPEC.to_owned(), self.digest.clone()),
        ])
    }

    /// From labels, or from the attributes of an event; `None` if they are not ours.
    #[must_use]
    pub fn of(labels: &HashMap<String, String>) -> Option<Self> {
        let text = |key: &str| labels.get(key).map(String::as_str);
        let replica = text(REPLICA)?.parse().ok()?;
        Some(Self {
            home: text(HOME)?.to_owned(),
            instance: InstanceId::new(text(PROJECT)?, text(COMPONENT)?, replica),
            run: RunId(text(RUN)?.parse().ok()?),
            digest: text(SPEC).unwrap_or_default().to_owned(),
        })
    }
}

/// The name of an instance's container: `shop.db`, and `shop.db.1` for the second replica. Names of
/// projects and components hold no dot, so that no two instances have one name.
#[must_use]
pub fn container_name(instance: &InstanceId) -> String {
    format!("{}.{}", instance.project, instance.display_name())
}

/// The name of the volume that stands for one without a name, at this place in the container.
#[must_use]
pub fn volume_name(instance: &InstanceId, target: &str) -> String {
    let digest = Sha256::digest(target.as_bytes());
    format!("{}_{}", container_name(instance), hex(&digest[..4]))
}

/// A digest of a spec, in which secrets are references.
#[must_use]
pub fn digest(spec: &ContainerSpec) -> String {
    // A spec of plain data can always be written.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    hex(&Sha256::digest(text)[..8])
}

/// A digest of what decides how an image comes out, as far as a manifest tells it.
#[must_use]
pub fn recipe(build: &BuildSpec, platform: Option<&str>) -> String {
    // Without the cache it takes longer, and comes out the same.
    let build = BuildSpec { no_cache: false, pull: false, ..build.clone() };
    let text = serde_json::to_vec(&(build, platform)).unwrap_or_default();
    hex(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lead_back_to_what_they_were_made_of() {
        let identity = Identity {
            home: "0123".into(),
            instance: InstanceId::new("shop", "db", 2),
            run: RunId(7),
            digest: digest(&ContainerSpec::default()),
        };
        assert_eq!(Identity::of(&identity.labels()), Some(identity.clone()));
        let mut others = identity.labels();
        others.remove(HOME);
        assert_eq!(Identity::of(&others), None);
    }

    #[test]
    fn no_two_instances_share_a_name() {
        let name = |project, component, replica| {
            container_name(&InstanceId::new(project, component, replica))
        };
        assert_eq!(name("shop", "db", 0), "shop.db");
        assert_eq!(name("shop", "db", 1), "shop.db.1");
        assert_ne!(name("a", "b-c", 0), name("a-b", "c", 0));
        let first = InstanceId::new("shop", "db", 0);
        assert_ne!(volume_name(&first, "/a"), volume_name(&first, "/b"));
    }
}
