//! Log lines, with what the daemon has to say between them.
//!
//! ```text
//!   history:  lines by time ─┬─ merged ─▶ client         follow:  a task a set of logs ─┐
//!             events ────────┘                                    events as they come ──┴─▶ client
//! ```
//!
//! A follower of everything also follows what is declared later. The lines of a component are read only
//! as fast as the client takes them.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use regex::bytes::Regex;
use tonic::Status;

use super::ask::Chosen;
use super::events::Whose;
use super::{Messages, Sender, Service, stream};
use crate::api::v1::{LogLine, LogsRequest, Selector};
use crate::logs::{Line, LogSource, LogStream, Query, parse_since, read};
use crate::model::InstanceId;
use crate::model::spec::Workload;
use crate::store::{EventFilter, EventRecord};
use crate::supervisor::Events;

/// `logs`.
pub(super) async fn logs(
    service: &Service,
    request: LogsRequest,
) -> Result<Messages<LogLine>, Status> {
    let query = query(&request)?;
    let selector = request.selector.unwrap_or_default();
    let told = service.handle.events.subscribe();
    let instances = service.writers(&selector).await?;
    let whose = Whose::new(service, &selector).await?;
    let service = service.clone();
    if request.previous {
        let spans = service.previous_runs(&instances).await?;
        return Ok(stream(move |sender| previous(spans, query, sender)));
    }
    let mut events = VecDeque::new();
    if request.events && query.grep.is_none() {
        events = service.events_for(&whose, &instances, &query).await?;
    }
    let follows = query.follow && query.until.is_none();
    if !follows {
        return Ok(stream(move |sender| {
            history(service.sources(&instances), query, events, sender)
        }));
    }
    let live = request.events && query.grep.is_none();
    Ok(stream(move |sender| async move {
        let following = Following {
            service,
            selector,
            query,
            sender,
            known: instances.iter().cloned().collect(),
        };
        following.run(instances, events, told, live.then_some(whose)).await;
    }))
}

fn query(request: &LogsRequest) -> Result<Query, Status> {
    let now = Timestamp::now();
    let time = |text: &str| match text {
        "" => Ok(None),
        text => parse_since(text, now).map(Some).map_err(Status::invalid_argument),
    };
    let grep = match &*request.grep {
        "" => None,
        pattern => Some(Regex::new(pattern).map_err(|error| {
            Status::invalid_argument(format!("{pattern} is not a regular expression: {error}"))
        })?),
    };
    Ok(Query {
        lines: request.lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        since: time(&request.since)?,
        until: time(&request.until)?,
        grep,
        follow: request.follow,
    })
}

impl Service {
    /// Who of those that are meant has a log.
    async fn writers(&self, selector: &Selector) -> Result<Vec<InstanceId>, Status> {
        let wanted = selector.clone();
        let look = self.look(move |world, _| {
            let mut chosen = Chosen::new(&wanted, world)?.instances;
            chosen.retain(|instance| {
                world.fleet.get(instance).is_some_and(|component| {
                    !matches!(component.spec().workload, Workload::External)
                })
            });
            Ok::<_, Status>(chosen)
        });
        look.await?
    }

    fn sources(&self, instances: &[InstanceId]) -> Vec<LogSource> {
        let source = |instance: &InstanceId| LogSource {
            instance: instance.clone(),
            path: self.home.component_log(instance),
            from: None,
            to: None,
        };
        instances.iter().map(source).collect()
    }

    /// The events that belong between the lines: not older than the oldest of these.
    async fn events_for(
        &self,
        whose: &Whose,
        instances: &[InstanceId],
        query: &Query,
    ) -> Result<VecDeque<EventRecord>, Status> {
        if query.lines == Some(0) {
            return Ok(VecDeque::new());
        }
        let mut since = query.since;
        if since.is_none() && query.lines.is_some() {
            let (sources, query) = (self.sources(instances), query.clone());
            let first = crate::blocking::spawn(move || {
                read(sources, &query).flatten().find_map(|line| line.at)
            });
            since = first.await.ok().flatten();
        }
        let nanos = |at: Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
        let limit = match (since, query.lines) {
            // Without a line, the last events say why there is none.
            (None, Some(lines)) => u32::try_from(lines).ok(),
            _ => None,
        };
        let filter = EventFilter { since: since.map(nanos), limit, ..EventFilter::default() };
        let mut events = self.history(filter).await?;
        let until = query.until.map_or(i64::MAX, nanos);
        events.retain(|record| record.event.at <= until && whose.includes(record));
        // A launch is told a little later than it happened.
        events.sort_by_key(|record| record.event.at);
        Ok(events.into())
    }

    /// For each instance, the time of its run before the present one.
    async fn previous_runs(
        &self,
        instances: &[InstanceId],
    ) -> Result<Vec<(LogSource, Timestamp, Timestamp)>, Status> {
        let mut spans = Vec::new();
        let histories = self.histories(instances, Some("launched"), None).await?;
        for source in self.sources(instances) {
            let Some(events) = histories.get(&source.instance) else { continue };
            let mut launches = events.iter().rev();
            let time = |record: Option<&EventRecord>| {
                let nanos = record?.event.at;
                Timestamp::from_nanosecond(nanos.into()).ok()
            };
            if let (Some(present), Some(before)) = (time(launches.next()), time(launches.next())) {
                spans.push((source, before, present));
            }
        }
        Ok(spans)
    }
}

/// Lines and events by time, then the end.
async fn history(
    sources: Vec<LogSource>,
    query: Query,
    mut events: VecDeque<EventRecord>,
    sender: Sender<LogLine>,
) {
    // Reading files blocks; the channel's bound holds it back.
    let reading = crate::blocking::spawn(move || {
        for line in read(sources, &query) {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    sender.blocking_send(Err(Status::internal(error.to_string()))).ok()?;
                    continue;
                }
            };
            for event in take_until(&mut events, line.at) {
                sender.blocking_send(Ok(event_line(&event))).ok()?;
            }
            sender.blocking_send(Ok(message(&line))).ok()?;
        }
        for event in events {
            sender.blocking_send(Ok(event_line(&event))).ok()?;
        }
        Some(())
    });
    // The client is gone, or it was all told.
    drop(reading.await);
}

/// The lines of single runs, merged by time.
async fn previous(
    spans: Vec<(LogSource, Timestamp, Timestamp)>,
    query: Query,
    sender: Sender<LogLine>,
) {
    let reading = crate::blocking::spawn(move || {
        let mut lines: Vec<Line> = Vec::new();
        for (source, from, to) in spans {
            let query = Query { since: Some(from), until: Some(to), ..query.clone() };
            lines.extend(read(vec![source], &query).flatten());
        }
        lines.sort_by_key(|line| line.at);
        for line in &lines {
            sender.blocking_send(Ok(message(line))).ok()?;
        }
        Some(())
    });
    drop(reading.await);
}

/// A client that wants to hear what comes.
struct Following {
    service: Service,
    selector: Selector,
    query: Query,
    sender: Sender<LogLine>,
    known: BTreeSet<InstanceId>,
}

impl Following {
    async fn run(
        mut self,
        instances: Vec<InstanceId>,
        events: VecDeque<EventRecord>,
        mut told: Events,
        mut live: Option<Whose>,
    ) {
        let last = events.iter().map(|record| record.id).max().unwrap_or_default();
        self.follow(&instances, &self.query, events);
        let mut projects = self.service.handle.projects.clone();
        loop {
            tokio::select! {
                changed = projects.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.newcomers(&mut live).await;
                }
                record = told.recv() => match record {
                    Some(record) if record.id != 0 && record.id <= last => {}
                    Some(record) => {
                        if live.as_ref().is_some_and(|whose| whose.includes(&record))
                            && self.sender.send(Ok(event_line(&record))).await.is_err()
                        {
                            return;
                        }
                    }
                    None => return,
                },
                () = self.sender.closed() => return,
            }
        }
    }

    /// Follows what is declared since, from its first line on.
    async fn newcomers(&mut self, live: &mut Option<Whose>) {
        // A project that is gone for the moment is no reason to stop listening.
        let Ok(mut instances) = self.service.writers(&self.selector).await else { return };
        instances.retain(|instance| self.known.insert(instance.clone()));
        if instances.is_empty() {
            return;
        }
        if let (Some(whose), Ok(wider)) =
            (live.as_mut(), Whose::new(&self.service, &self.selector).await)
        {
            *whose = wider;
        }
        let query = Query { lines: None, ..self.query.clone() };
        self.follow(&instances, &query, VecDeque::new());
    }

    fn follow(&self, instances: &[InstanceId], query: &Query, events: VecDeque<EventRecord>) {
        let sources = self.service.sources(instances);
        let lines = LogStream::new(sources, query, &self.service.logs);
        tokio::spawn(pass_on(lines, events, self.sender.clone()));
    }
}

/// Passes lines on as they come, old events among them.
async fn pass_on(
    mut lines: LogStream,
    mut events: VecDeque<EventRecord>,
    sender: Sender<LogLine>,
) -> Option<()> {
    loop {
        let batch = tokio::select! {
            batch = lines.next() => batch?,
            // What is left of the history, once no more lines of it come.
            () = tokio::time::sleep(QUIET), if !events.is_empty() => {
                for event in events.drain(..) {
                    sender.send(Ok(event_line(&event))).await.ok()?;
                }
                continue;
            }
            () = sender.closed() => return None,
        };
        match batch {
            Ok(batch) => {
                for line in batch {
                    for event in take_until(&mut events, line.at) {
                        sender.send(Ok(event_line(&event))).await.ok()?;
                    }
                    sender.send(Ok(message(&line))).await.ok()?;
                }
            }
            Err(error) => sender.send(Err(Status::internal(error.to_string()))).await.ok()?,
        }
    }
}

/// How long no line of the history may come until the rest of the events is told.
const QUIET: std::time::Duration = std::time::Duration::from_millis(50);

/// The events that are not later than this.
fn take_until(events: &mut VecDeque<EventRecord>, at: Option<Timestamp>) -> Vec<EventRecord> {
    let Some(at) = at else { return Vec::new() };
    let at = i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
    let count = events.iter().take_while(|record| record.event.at <= at).count();
    events.drain(..count).collect()
}

/// A line in the words of the interface.
pub(super) fn message(line: &Line) -> LogLine {
    let text = String::from_utf8_lossy(&line.text);
    let raw = matches!(text, std::borrow::Cow::Owned(_)).then(|| line.text.clone());
    LogLine {
        project: line.instance.project.to_string(),
        component: line.instance.component.to_string(),
        replica: line.instance.replica,
        at: line.at.map(|at| at.to_string()),
        text: text.into_owned(),
        raw,
        event: false,
        position: Some(line.offset),
    }
}

fn event_line(record: &EventRecord) -> LogLine {
    let event = super::events::event(record);
    LogLine {
        project: event.project,
        component: event.component,
        replica: event.replica,
        at: Some(event.at),
        text: event.message,
        raw: None,
        event: true,
        // An event that could not be stored has no number.
        position: Some(event.id).filter(|id| *id != 0),
    }
}
