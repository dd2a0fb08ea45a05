//! The history, and what happens from now on.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;
use tonic::Status;

use super::ask::Chosen;
use super::{Messages, Service, stream};
use crate::api::v1::{Event, EventsRequest, Selector};
use crate::api::view::show_nanos;
use crate::logs::parse_since;
use crate::model::{InstanceId, Severity};
use crate::store::{EventFilter, EventRecord};
use crate::supervisor::Request;

/// `events`.
pub(super) async fn events(
    service: &Service,
    request: EventsRequest,
) -> Result<Messages<Event>, Status> {
    let since = match &*request.since {
        "" => None,
        text => Some(parse_since(text, jiff::Timestamp::now()).map_err(Status::invalid_argument)?),
    };
    let selector = request.selector.unwrap_or_default();
    // First subscribed, then read: what happens between the two is in both, and told once.
    let mut told = service.handle.events.subscribe();
    let whose = Whose::new(service, &selector).await?;
    let filter = EventFilter {
        project: whose.only_project(),
        since: since.map(|at| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)),
        limit: (request.limit > 0 && whose.is_all_of_filter()).then_some(request.limit),
        ..EventFilter::default()
    };
    let mut history = service.history(filter).await?;
    history.retain(|record| whose.includes(record));
    if request.limit > 0 {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        history.drain(..history.len().saturating_sub(limit));
    }
    let last = history.last().map_or(0, |record| record.id);
    let follow = request.follow;
    Ok(stream(move |sender| async move {
        for record in &history {
            if sender.send(Ok(event(record))).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        loop {
            let record = tokio::select! {
                record = told.recv() => record,
                () = sender.closed() => return,
            };
            let record = match record {
                // An event that could not be stored has no number.
                Some(record) if record.id != 0 && record.id <= last => continue,
                Some(record) => record,
                None => return,
            };
            if whose.includes(&record) && sender.send(Ok(event(&record))).await.is_err() {
                return;
            }
        }
    }))
}

/// Whose events are wanted.
#[derive(Debug)]
pub(super) struct Whose {
    /// Empty: of all, also of those that are gone.
    projects: Vec<String>,
    /// `None`: of all components, and of the project itself.
    instances: Option<HashSet<InstanceId>>,
}

impl Whose {
    pub(super) async fn new(service: &Service, selector: &Selector) -> Result<Self, Status> {
        if *selector == Selector::default() {
            return Ok(Self { projects: Vec::new(), instances: None });
        }
        let wanted = selector.clone();
        let chosen = service.look(move |world, _| Chosen::new(&wanted, world)).await??;
        let named = !selector.names.is_empty();
        Ok(Self {
            projects: chosen.projects,
            instances: named.then(|| chosen.instances.into_iter().collect()),
        })
    }

    pub(super) fn includes(&self, record: &EventRecord) -> bool {
        let event = &record.event;
        if !self.projects.is_empty() && !self.projects.contains(&event.project) {
            return false;
        }
        self.instances.as_ref().is_none_or(|instances| {
            let instance = InstanceId::new(&event.project, &event.component, event.replica);
            !event.component.is_empty() && instances.contains(&instance)
        })
    }

    fn only_project(&self) -> Option<String> {
        match &*self.projects {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    /// Whether the store's own filter says it all, so that it may count.
    fn is_all_of_filter(&self) -> bool {
        self.instances.is_none() && self.projects.len() <= 1
    }
}

/// So many instances are asked about one by one.
const FEW: usize = 8;

impl Service {
    /// What is remembered, oldest first.
    pub(super) async fn history(&self, filter: EventFilter) -> Result<Vec<EventRecord>, Status> {
        let (reply, answer) = oneshot::channel();
        let events = self.ask(Request::Events { filter, reply }, answer).await?;
        events.map_err(|error| Status::internal(error.to_string()))
    }

    /// What is remembered of each of these instances, oldest first; only what has this word, and the last so
    /// many of each, if `kind` and `most` say so.
    ///
    /// Each question has the whole history looked through while the supervisor does nothing else, so a few
    /// instances are asked about one by one, and others are heard in between. Many are asked about together.
    pub(super) async fn histories(
        &self,
        instances: &[InstanceId],
        kind: Option<&str>,
        most: Option<u32>,
    ) -> Result<HashMap<InstanceId, VecDeque<EventRecord>>, Status> {
        let mut filter = EventFilter { kind: kind.map(str::to_owned), ..EventFilter::default() };
        if instances.len() <= FEW {
            let mut histories = HashMap::new();
            for instance in instances {
                filter.instance = Some(instance.clone());
                filter.limit = most;
                histories.insert(instance.clone(), self.history(filter.clone()).await?.into());
            }
            return Ok(histories);
        }
        if let Some((first, others)) = instances.split_first()
            && others.iter().all(|other| other.project == first.project)
        {
            filter.project = Some(first.project.to_string());
        }
        let mut histories: HashMap<InstanceId, VecDeque<EventRecord>> =
            instances.iter().map(|instance| (instance.clone(), VecDeque::new())).collect();
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        for record in self.history(filter).await? {
            let event = &record.event;
            let instance = InstanceId::new(&event.project, &event.component, event.replica);
            let of_project = event.component.is_empty();
            let Some(known) = histories.get_mut(&instance).filter(|_| !of_project) else {
                continue;
            };
            if known.len() == most {
                known.pop_front();
            }
            known.push_back(record);
        }
        Ok(histories)
    }
}

/// An event in the words of the interface.
pub(super) fn event(record: &EventRecord) -> Event {
    let event = &record.event;
    Event {
        id: record.id,
        at: show_nanos(event.at),
        project: event.project.clone(),
        component: event.component.clone(),
        replica: event.replica,
        kind: event.kind.clone(),
        severity: match event.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
        .to_owned(),
        message: event.message.clone(),
    }
}
