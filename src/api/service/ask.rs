//! Questions to the supervisor, and who is meant by a selector.

use std::path::Path;

use tokio::sync::oneshot;
use tonic::Status;

use super::Service;
use super::reply::ending;
use crate::api::select::{self, Known};
use crate::api::v1::{Component, Selector, StatusRequest, StatusResponse};
use crate::api::view::{self, Clock, Extent};
use crate::model::InstanceId;
use crate::supervisor::{Input, Look, Project, Request, World};

impl Service {
    /// Looks at what the supervisor owns. The closure runs inside its loop and must be short.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&World<'_>, Clock) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (sender, answer) = oneshot::channel();
        let look = Look(Box::new(move |world| {
            let clock = Clock { monotonic: world.now, wall: jiff::Timestamp::now() };
            // Who asked may be gone.
            drop(sender.send(look(world, clock)));
        }));
        self.ask(Request::Look(look), answer).await
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        request: Request,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, Status> {
        self.asked.send_modify(|count| *count += 1);
        self.handle.inputs.send(Input::Request(request)).map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    /// The status of whom a request means.
    pub(super) async fn status_of(
        &self,
        request: &StatusRequest,
    ) -> Result<StatusResponse, Status> {
        let selector = request.selector.clone().unwrap_or_default();
        let (home, usage) = (self.home.clone(), request.usage);
        let extent = Extent::of(request.brief);
        let look = move |world: &World<'_>, clock: Clock| {
            let chosen = Chosen::new(&selector, world)?;
            let projects: Vec<&str> = chosen.projects.iter().map(String::as_str).collect();
            let runs = if usage { chosen.runs(world) } else { Vec::new() };
            Ok((view::status(world, &home, clock, &projects, &chosen.instances, extent), runs))
        };
        let (mut status, runs) = self.look(look).await?.map_err(|error: Status| error)?;
        self.add_log_problems(&mut status.components);
        if request.usage {
            self.add_usage(&mut status.components, runs).await;
        }
        Ok(status)
    }

    /// Fills in what is wrong with their logs.
    pub(super) fn add_log_problems(&self, components: &mut [Component]) {
        if !self.logs.has_problems() {
            return;
        }
        for component in components {
            let Component { project, name, replica, .. } = component;
            component.log_problem = self.logs.problem(&InstanceId::new(project, name, *replica));
        }
    }
}

/// Whom a selector means.
pub(super) struct Chosen {
    /// Projects by name.
    pub(super) projects: Vec<String>,
    /// In order.
    pub(super) instances: Vec<InstanceId>,
}

impl Chosen {
    /// Follows a selector. A manifest that is not applied, and a name that means nobody, are errors.
    pub(super) fn new(selector: &Selector, world: &World<'_>) -> Result<Self, Status> {
        let projects = projects(selector, world.projects.iter())?;
        let all = world.fleet.iter().map(|(instance, _)| instance);
        let instances = select::instances(selector, &projects, all)?;
        Ok(Self { projects: projects.into_iter().map(str::to_owned).collect(), instances })
    }

    /// The present run and main process of each.
    pub(super) fn runs(&self, world: &World<'_>) -> Vec<super::usage::Running> {
        let running = |instance: &InstanceId| {
            let component = world.fleet.get(instance)?;
            let pid = component.main_pid()?;
            Some(super::usage::Running { instance: instance.clone(), run: component.run()?, pid })
        };
        self.instances.iter().filter_map(running).collect()
    }
}

/// The projects that a selector means.
pub(super) fn projects<'a>(
    selector: &Selector,
    all: impl Iterator<Item = (&'a String, &'a Project)>,
) -> Result<Vec<&'a str>, Status> {
    let known: Vec<Known<'a>> =
        all.map(|(name, project)| (name.as_str(), &*project.record.manifest)).collect();
    let projects = select::projects(selector, &known)?;
    if projects.is_empty() && selector.project.is_empty() && !selector.manifest.is_empty() {
        let manifest = Path::new(&selector.manifest).display();
        return Err(Status::not_found(format!("{manifest} is not applied; type `stigmer apply`")));
    }
    Ok(projects)
}
