//! One component in full, and the manifest that is in force.

use std::path::PathBuf;

use tonic::Status;

use super::ask::Chosen;
use super::usage::{Running, processes};
use super::{Service, events, logs};
use crate::api::v1::{
    ComponentDetail, ConfigRequest, ConfigResponse, Dependency, DetailRequest, DetailResponse,
    ExitRecord,
};
use crate::api::view::{self, Clock};
use crate::logs::{LogSource, Query};
use crate::machine::Component;
use crate::manifest;
use crate::model::spec::ProjectSpec;
use crate::model::{InstanceId, ProbeRole};
use crate::supervisor::World;

/// How many of its last events a component's detail shows.
const EVENTS: u32 = 10;

/// `status NAME`, `why NAME`.
pub(super) async fn detail(
    service: &Service,
    request: DetailRequest,
) -> Result<DetailResponse, Status> {
    let selector = request.selector.unwrap_or_default();
    let home = service.home.clone();
    let seen = service.look(move |world, clock| {
        let chosen = Chosen::new(&selector, world)?;
        let runs = chosen.runs(world);
        let details: Vec<ComponentDetail> = chosen
            .instances
            .iter()
            .filter_map(|instance| {
                let component = world.fleet.get(instance)?;
                Some(of_component(instance, component, world, &home, clock))
            })
            .collect();
        Ok::<_, Status>((details, chosen.instances, runs))
    });
    let (mut details, instances, runs) = seen.await??;
    let mut components: Vec<_> =
        details.iter_mut().filter_map(|detail| detail.component.take()).collect();
    service.add_log_problems(&mut components);
    service.add_usage(&mut components, runs.clone()).await;
    let mut histories = service.histories(&instances, None, Some(EVENTS)).await?;
    for ((detail, component), instance) in details.iter_mut().zip(components).zip(instances) {
        let log_file = component.log_file.clone();
        detail.component = Some(component);
        let told = histories.remove(&instance).unwrap_or_default();
        detail.events = told.iter().map(events::event).collect();
        let running = runs.iter().find(|running| running.instance == instance).cloned();
        let look = Look { running, records: service.home.records(), log_file, instance };
        let lines = request.log_lines;
        let looked = crate::blocking::spawn(move || look.look(lines));
        (detail.processes, detail.log_tail) = looked.await.unwrap_or_default();
    }
    Ok(DetailResponse { components: details })
}

/// What has to be looked up outside of the supervisor's loop.
struct Look {
    running: Option<Running>,
    records: PathBuf,
    log_file: String,
    instance: InstanceId,
}

impl Look {
    fn look(self, lines: u32) -> (Vec<crate::api::v1::ProcessNode>, Vec<crate::api::v1::LogLine>) {
        let found = self.running.map(|running| processes(&self.records, &running));
        let query = Query { lines: usize::try_from(lines).ok(), ..Query::default() };
        if self.log_file.is_empty() || lines == 0 {
            return (found.unwrap_or_default(), Vec::new());
        }
        let source =
            LogSource { instance: self.instance, path: self.log_file.into(), from: None, to: None };
        let tail = crate::logs::read(vec![source], &query);
        (found.unwrap_or_default(), tail.flatten().map(|line| logs::message(&line)).collect())
    }
}

fn of_component(
    instance: &InstanceId,
    component: &Component,
    world: &World<'_>,
    home: &crate::home::Home,
    clock: Clock,
) -> ComponentDetail {
    let exits = component.exits().map(|record| ExitRecord {
        exit: Some(view::exit(record, clock)),
        cause: record.cause.clone(),
        uptime_seconds: record.uptime.as_secs_f64(),
    });
    ComponentDetail {
        component: Some(view::component(instance, component, home, clock)),
        spec: manifest::component_to_yaml(&instance.component, component.spec()),
        exits: exits.collect(),
        processes: Vec::new(),
        log_tail: Vec::new(),
        events: Vec::new(),
        depends_on: dependencies(instance, component, world),
    }
}

fn dependencies(
    instance: &InstanceId,
    component: &Component,
    world: &World<'_>,
) -> Vec<Dependency> {
    let unmet = world.fleet.unmet(instance);
    let each = component.spec().depends_on.iter().map(|(name, condition)| {
        let holds = !unmet.iter().any(|(other, _)| other == name);
        let members: Vec<&Component> = world
            .fleet
            .iter()
            .filter(|(other, _)| other.project == instance.project && *other.component == **name)
            .map(|(_, member)| member)
            .collect();
        // The one that holds things up, if there are replicas.
        let slowest = members.iter().find(|member| !member.satisfies(*condition));
        let shown = slowest.or(members.first());
        Dependency {
            name: name.clone(),
            condition: condition.as_str().to_owned(),
            holds,
            state: shown.map_or("", |member| member.state().as_str()).to_owned(),
            why: match shown {
                None => "it is not declared any more".to_owned(),
                Some(_) if holds => String::new(),
                Some(member) => why(member, world),
            },
        }
    });
    each.collect()
}

/// What a component is doing that others wait for, in plain words.
fn why(component: &Component, world: &World<'_>) -> String {
    let view = component.view(world.now);
    let probe = ProbeRole::ALL.iter().find_map(|role| {
        let last = component.probe(*role)?.last.as_ref()?;
        let message = last.outcome.as_ref().err()?;
        Some(format!("its {role} probe fails: {message}"))
    });
    let error = view.last_error.map(|error| error.message.clone());
    let doing = view.reason.clone();
    let parts: Vec<String> = probe.into_iter().chain(doing).chain(error).take(2).collect();
    parts.join("; ")
}

/// `config --applied`.
pub(super) async fn config(
    service: &Service,
    request: ConfigRequest,
) -> Result<ConfigResponse, Status> {
    let selector = request.selector.unwrap_or_default();
    let specs = service.look(move |world, _| {
        let chosen = Chosen::new(&selector, world)?;
        let specs = chosen.projects.iter().filter_map(|name| {
            let project = world.projects.get(name)?;
            let mut spec = ProjectSpec {
                name: name.clone(),
                manifest: project.record.manifest.clone(),
                info: project.record.info.clone(),
                components: std::collections::BTreeMap::new(),
            };
            for instance in chosen.instances.iter().filter(|one| *one.project == **name) {
                let component = world.fleet.get(instance)?;
                spec.components.insert(instance.component.to_string(), component.spec().clone());
            }
            Some(spec)
        });
        Ok::<_, Status>(specs.collect::<Vec<_>>())
    });
    let specs = specs.await??;
    let documents: Vec<String> = specs.iter().map(manifest::to_yaml).collect();
    Ok(ConfigResponse { yaml: documents.join("---\n") })
}
