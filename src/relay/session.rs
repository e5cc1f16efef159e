//! One lease and the loop that works under it: drain reports -> settle -> fetch -> send. Thin: what to do is decided in [`super::core`].

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    RunOptions, Source, Status,
    core::{Core, Outcome, Outgoing},
    lanes::{LEASE_TTL, RENEW_EVERY, SURVEY_EVERY, lease_deadline},
    lease::{Turn, Turned, turn},
    marks::Tick,
    open::Opened,
    routes::Routes,
    watch::News,
    window::{Budget, Slot},
};
use crate::{
    kafka::{self, Fault, Producer, Report, Trouble},
    outbox::{Depth, FetchPlan, Fetched, LaneMarksPlan, Store, StoreError, connect::Connect},
    report::{Backlog, Problem, ProblemClass},
};

/// An acknowledged row waits at most this long for others to be settled with.
const SETTLE_WITHIN: Duration = Duration::from_millis(5);
/// Settling statements under way at the same time.
const SETTLES_MAX: usize = 2;
/// While rows flow and nothing else brings a tick.
const TICK_EVERY: Duration = Duration::from_millis(50);
/// Reports are looked at this often at most: one at a time they would cost a turn each.
const REPORTS_EVERY: Duration = Duration::from_millis(1);
const BACKLOG_EVERY: Duration = Duration::from_secs(5);
const BACKLOG_ROWS_MAX: u32 = 100_000;
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// After a failure of the database.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// On SIGTERM, for what is in flight.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Why a session ended.
pub(super) enum Ended {
    Stopped,
    LeaseLost,
}

/// Whether records can be sent.
enum Sending {
    Open(Producer),
    /// It failed for good, or lost its lease: thrown out, and its last reports are awaited before another may begin.
    Retiring(Producer),
    /// None, until then.
    None {
        retry_at: Instant,
    },
}

type Running<T> = Option<BoxFuture<'static, T>>;

/// A row by lane, id and event_id.
type RowName = (u8, i64, Uuid);

/// How a settling statement ended; its transaction is a tick.
struct Settled {
    slots: Vec<Slot>,
    began: Instant,
    result: Result<Tick, StoreError>,
}

/// What is done when, besides being driven by events.
struct Timers {
    reports: Instant,
    lease: Instant,
    renew: Instant,
    tick: Instant,
    backlog: Instant,
    sweep: Instant,
    settle: Option<Instant>,
    database: Instant,
}

/// One life under one lease.
pub(super) struct Session<'a> {
    options: &'a RunOptions,
    status: &'a Status,
    news: &'a mut UnboundedReceiver<News>,
    store: Store,
    instance: Uuid,
    core: Core,
    sending: Sending,
    trouble: Trouble,
    reports: UnboundedReceiver<Report>,
    reports_to: tokio::sync::mpsc::UnboundedSender<Report>,
    created_at_us: Vec<i64>,
    source: String,
    deadline: Instant,
    timers: Timers,
    stop_by: Option<Instant>,
    fetch: Running<(FetchPlan, Instant, Result<Fetched, StoreError>)>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    lease: Running<Result<Turned, StoreError>>,
    tick: Running<(i64, Result<u64, StoreError>)>,
    backlog: Running<(Instant, Result<Depth, StoreError>)>,
    sweep: Running<Result<Vec<RowName>, StoreError>>,
}

/// Something that the loop waited for.
enum Event {
    Fetched(FetchPlan, Instant, Result<Fetched, StoreError>),
    Settled(Settled),
    Leased(Result<Turned, StoreError>),
    Ticked(i64, Result<u64, StoreError>),
    Counted(Instant, Result<Depth, StoreError>),
    Swept(Result<Vec<RowName>, StoreError>),
    News(News),
    Report(Report),
    Time,
    Stop,
}

impl<'a> Session<'a> {
    /// Registers a new instance.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn begin(
        options: &'a RunOptions,
        status: &'a Status,
        opened: Opened,
        news: &'a mut UnboundedReceiver<News>,
    ) -> Result<Session<'a>, StoreError> {
        let (instance, now) = (Uuid::new_v4(), Instant::now());
        opened.store.register(instance, &options.pod, LEASE_TTL).await?;
        status.began(instance.to_string(), opened.schema_version);
        let (reports_to, reports) = unbounded_channel();
        let (settings, budget) = (&options.settings, Budget::default());
        Ok(Self {
            core: Core::new(Routes::new(&settings.topics), budget, settings.poll_interval(), now),
            source: format!("/outbox/{}/{}", settings.owner.namespace, settings.owner.name),
            options,
            status,
            news,
            store: opened.store,
            instance,
            sending: Sending::None { retry_at: now },
            trouble: Trouble::default(),
            reports,
            reports_to,
            created_at_us: vec![0; budget.rows],
            deadline: lease_deadline(now),
            timers: Timers {
                reports: now,
                lease: now,
                renew: now + RENEW_EVERY,
                tick: now,
                backlog: now,
                sweep: now + SWEEP_EVERY,
                settle: None,
                database: now,
            },
            stop_by: None,
            fetch: None,
            settles: FuturesUnordered::new(),
            lease: None,
            tick: None,
            backlog: None,
            sweep: None,
        })
    }

    /// Works until stopped, or until the lease is lost.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Ended {
        loop {
            let now = Instant::now();
            self.status.turned(now);
            self.drain_reports(now);
            if now >= self.deadline {
                return self.lose_lease().await;
            }
            if self.is_drained(now) {
                return self.leave().await;
            }
            self.keep_producer(now).await;
            self.core.resume(now);
            self.start(now);
            match self.next_event(stop).await {
                Event::Fetched(plan, began, fetched) => self.fetched(&plan, began, fetched),
                Event::Settled(settled) => self.settled(settled),
                Event::Leased(result) => {
                    if !self.leased(result) {
                        return self.lose_lease().await;
                    }
                }
                Event::Ticked(drawn, result) => self.ticked(drawn, result),
                Event::Counted(began, result) => self.counted(began, result),
                Event::Swept(result) => self.swept(result),
                Event::News(news) => self.heard(&news),
                Event::Report(report) => self.reported(report, Instant::now()),
                Event::Time => {}
                Event::Stop => self.begin_to_stop(),
            }
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let wake = self.next_wake().into();
        let stopping = self.stop_by.is_some();
        let hear_reports = Instant::now() >= self.timers.reports;
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => Event::Stop,
            Some(result) = take(&mut self.lease) => Event::Leased(result),
            Some((plan, began, fetched)) = take(&mut self.fetch) => Event::Fetched(plan, began, fetched),
            Some(settled) = self.settles.next() => Event::Settled(settled),
            Some((drawn, result)) = take(&mut self.tick) => Event::Ticked(drawn, result),
            Some((began, result)) = take(&mut self.backlog) => Event::Counted(began, result),
            Some(result) = take(&mut self.sweep) => Event::Swept(result),
            Some(news) = self.news.recv() => Event::News(news),
            Some(report) = self.reports.recv(), if hear_reports => Event::Report(report),
            () = tokio::time::sleep_until(wake) => Event::Time,
        }
    }

    /// When the loop has to turn although nothing happens: only for work that could start then.
    fn next_wake(&self) -> Instant {
        let (now, timers, window) = (Instant::now(), &self.timers, self.core.window());
        let works = self.stop_by.is_none();
        let may_fetch = works && matches!(self.sending, Sending::Open(_));
        let database = |at: Instant| at.max(timers.database);
        [
            Some(self.deadline),
            self.stop_by,
            self.lease.is_none().then_some(timers.lease),
            may_fetch.then(|| self.core.fetch_at()).flatten().map(database),
            (self.settles.len() < SETTLES_MAX).then_some(timers.settle).flatten().map(database),
            (timers.reports > now).then_some(timers.reports),
            (works && self.tick.is_none() && window.rows() > 0).then(|| database(timers.tick)),
            (works && self.backlog.is_none()).then(|| database(timers.backlog)),
            (works && self.sweep.is_none()).then(|| database(timers.sweep)),
            self.core.resume_at(),
            if let Sending::None { retry_at } = self.sending { works.then_some(retry_at) } else { None },
        ]
        .into_iter()
        .flatten()
        .fold(now + Duration::from_secs(1), Instant::min)
    }

    // --- starting work

    fn start(&mut self, now: Instant) {
        self.start_settles(now);
        self.start_lease(now);
        if self.stop_by.is_some() || now < self.timers.database {
            return;
        }
        if self.fetch.is_none()
            && matches!(self.sending, Sending::Open(_))
            && let Some(plan) = self.core.plan_fetch(now)
        {
            let store = self.store.clone();
            self.fetch = start(async move {
                let fetched = store.fetch(&plan).await;
                (plan, now, fetched)
            });
        }
        if self.tick.is_none() && now >= self.timers.tick && self.core.window().rows() > 0 {
            let (store, seen) = (self.store.clone(), self.core.seen());
            self.tick = start(async move { (seen, store.tick().await) });
        }
        let marks = self.core.marks();
        if self.backlog.is_none() && now >= self.timers.backlog {
            let (store, marks) = (self.store.clone(), marks.clone());
            self.backlog = start(async move { (now, store.backlog(&marks.lanes, &marks.marks, BACKLOG_ROWS_MAX).await) });
        }
        if self.sweep.is_none() && now >= self.timers.sweep {
            self.timers.sweep = now + SWEEP_EVERY;
            let store = self.store.clone();
            self.sweep = start(async move { store.sweep(&marks.lanes, &marks.marks).await });
        }
    }

    fn start_settles(&mut self, now: Instant) {
        let batch_size = self.options.settings.batch_size as usize;
        if self.core.window().acked() == 0 {
            self.timers.settle = None;
        } else if self.timers.settle.is_none() {
            self.timers.settle = Some(now + SETTLE_WITHIN);
        }
        while self.settles.len() < SETTLES_MAX && now >= self.timers.database {
            let flush = self.timers.settle.is_some_and(|at| at <= now);
            let Some(settle) = self.core.next_settle(batch_size, flush) else { return };
            self.timers.settle = (self.core.window().acked() > 0).then_some(now + SETTLE_WITHIN);
            self.timers.tick = now + TICK_EVERY;
            let (store, drawn) = (self.store.clone(), self.core.seen());
            self.settles.push(
                async move {
                    let result = store.settle(&settle.plan).await.map(|xid| Tick { xid, drawn });
                    Settled { slots: settle.slots, began: now, result }
                }
                .boxed(),
            );
        }
    }

    fn start_lease(&mut self, now: Instant) {
        if self.lease.is_some() || now < self.timers.lease {
            return;
        }
        let renew = (now >= self.timers.renew).then(|| self.core.marks());
        let turn_now = Turn {
            instance: self.instance,
            renew,
            release: self.core.drained(),
            known: self.core.marks().lanes,
            owned: self.core.owned(),
            seen: self.core.seen(),
            stopping: self.stop_by.is_some(),
        };
        self.lease = start(turn(self.store.clone(), turn_now));
    }

    // --- what came

    fn fetched(&mut self, plan: &FetchPlan, began: Instant, fetched: Result<Fetched, StoreError>) {
        let now = Instant::now();
        self.drain_reports(now);
        match fetched {
            Ok(fetched) if matches!(self.sending, Sending::Open(_)) => {
                self.status.metrics.fetch.observe((now - began).as_secs_f64());
                let added = self.core.added;
                let outgoing = self.core.accept(plan, fetched, now);
                self.status.metrics.added.inc_by(self.core.added - added);
                self.send(outgoing, now);
            }
            Ok(_) => self.core.fetch_failed(now),
            Err(error) => {
                self.core.fetch_failed(now);
                self.database_failed(&error, now);
            }
        }
    }

    /// Sends in order. After a failure nothing more of that topic follows: what is not sent is read again, from its lowest row.
    fn send(&mut self, outgoing: Vec<Outgoing>, now: Instant) {
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        for Outgoing { slot, topic, row } in outgoing {
            self.look_for_failures(now);
            let Sending::Open(producer) = &self.sending else {
                self.core.reported(slot, Outcome::Purged, now);
                continue;
            };
            if !self.core.stops().flows(topic) {
                self.core.reported(slot, Outcome::Purged, now);
                continue;
            }
            let mut replaced = 0;
            let Ok(headers) = kafka::headers(&row, self.options.settings.record_headers, &self.source, &mut replaced) else {
                self.failed(slot, topic, Fault::Record(ProblemClass::RecordRejected), now);
                continue;
            };
            self.status.metrics.replaced_headers.inc_by(replaced);
            self.created_at_us[slot] = row.created_at_us;
            let timestamp = kafka::timestamp_ms(row.created_at_us, now_ms);
            let sent = producer.send(self.core.routes().name(topic), row.key(), row.payload.as_deref(), headers, timestamp, slot);
            if let Err(fault) = sent {
                self.failed(slot, topic, fault, now);
            }
        }
    }

    /// Whether a record failed is asked before each send.
    fn look_for_failures(&mut self, now: Instant) {
        while let Sending::Open(producer) = &mut self.sending
            && producer.has_new_failures()
        {
            self.drain_reports(now);
        }
    }

    fn drain_reports(&mut self, now: Instant) {
        let mut published = 0;
        while let Ok(report) = self.reports.try_recv() {
            published += u64::from(report.outcome.is_ok());
            self.reported(report, now);
        }
        if published > 0 {
            self.trouble.clear();
            self.status.published(published, now);
        }
    }

    fn reported(&mut self, report: Report, now: Instant) {
        self.timers.reports = now + REPORTS_EVERY;
        let Some(topic) = self.core.window().topic_of(report.slot) else { return };
        match report.outcome {
            Ok(()) => {
                let now_us = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
                let latency_us = now_us.saturating_sub(self.created_at_us[report.slot]).max(0);
                self.status.metrics.publish_latency.observe(latency_us as f64 / 1e6);
                self.status.metrics.published.with_label_values(&[self.core.routes().name(topic)]).inc();
                self.core.reported(report.slot, Outcome::Published, now);
            }
            Err(fault) => self.failed(report.slot, topic, fault, now),
        }
    }

    fn failed(&mut self, slot: usize, topic: usize, fault: Fault, now: Instant) {
        let outcome = match fault {
            Fault::Cluster(class) | Fault::Topic(class) | Fault::Record(class) => {
                let name = self.core.routes().name(topic);
                self.status.metrics.failed.with_label_values(&[name, &class.to_string()]).inc();
                tracing::warn!(topic = name, %class, "a record failed; its topic rests and starts again at its lowest row");
                Outcome::Failed(class)
            }
            Fault::Purged => Outcome::Purged,
        };
        self.core.reported(slot, outcome, now);
    }

    fn settled(&mut self, settled: Settled) {
        let now = Instant::now();
        match settled.result {
            Ok(tick) => {
                self.status.metrics.settle.observe((now - settled.began).as_secs_f64());
                self.core.tick(tick);
                self.core.settled(&settled.slots);
                self.database_works();
            }
            Err(error) => {
                self.core.settle_failed(&settled.slots);
                self.timers.settle = Some(now + RETRY_AFTER);
                self.database_failed(&error, now);
            }
        }
    }

    /// Returns whether the lease holds.
    fn leased(&mut self, result: Result<Turned, StoreError>) -> bool {
        let now = Instant::now();
        self.timers.lease = now + SURVEY_EVERY;
        let (renewed, released, granted, give_back) = match result {
            Ok(Turned::Holds { renewed, released, granted, give_back }) => (renewed, released, granted, give_back),
            Ok(Turned::Lost) => return false,
            Err(error) => {
                self.database_failed(&error, now);
                return true;
            }
        };
        if let Some(renewed) = renewed {
            self.deadline = lease_deadline(renewed.sent);
            self.timers.renew = renewed.sent + RENEW_EVERY;
            self.core.tick(Tick { xid: renewed.xid, drawn: renewed.drawn });
            if !self.core.owns_exactly(&renewed.ours) {
                return false;
            }
        }
        self.core.released(&released);
        self.core.granted(&granted, now);
        self.core.drain(give_back);
        self.database_works();
        self.status.set_lanes(self.core.owned());
        self.status.set_ready(true);
        true
    }

    fn ticked(&mut self, drawn: i64, result: Result<u64, StoreError>) {
        let now = Instant::now();
        self.timers.tick = now + TICK_EVERY;
        match result {
            Ok(xid) => self.core.tick(Tick { xid, drawn }),
            Err(error) => self.database_failed(&error, now),
        }
    }

    fn counted(&mut self, began: Instant, result: Result<Depth, StoreError>) {
        let now = Instant::now();
        // At most a hundredth of the database's time.
        self.timers.backlog = now + BACKLOG_EVERY.max((now - began) * 100);
        let metrics = &self.status.metrics;
        metrics.in_flight_rows.set(self.core.window().rows() as i64);
        metrics.in_flight_bytes.set(self.core.window().bytes() as i64);
        self.tell_topics();
        let Ok(depth) = result else { return self.status.set_backlog(None) };
        let oldest = depth.oldest_us.map(kafka::rfc3339);
        metrics.queue_depth.set(depth.rows as i64);
        let now_us = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        metrics.event_age.set(depth.oldest_us.map_or(0.0, |oldest| now_us.saturating_sub(oldest).max(0) as f64 / 1e6));
        let capped = depth.rows >= u64::from(BACKLOG_ROWS_MAX);
        self.status.set_backlog(Some(Backlog { rows: depth.rows, capped, oldest_at: oldest }));
    }

    /// Topics that rest, as far as the watch does not see it.
    fn tell_topics(&self) {
        let (resting, astray) = self.core.stops().reasons();
        let mut problems: Vec<Problem> = resting
            .into_iter()
            .filter(|(_, class)| *class != ProblemClass::TopicMissing)
            .map(|(topic, class)| {
                let name = self.core.routes().name(topic);
                Problem::new(
                    class,
                    format!("topic '{name}' refuses a record: it rests and is tried again; look at the relay's log and the topic's limits"),
                )
            })
            .collect();
        if astray {
            let message = "rows name a topic, or have types, that spec.topics does not declare: add it there; they wait until then";
            problems.push(Problem::new(ProblemClass::TopicNotDeclared, message));
        }
        self.status.tell(Source::Records, problems);
    }

    fn swept(&mut self, result: Result<Vec<RowName>, StoreError>) {
        let Ok(found) = result else { return };
        for (lane, id, event_id) in found {
            if self.core.straggler(lane, id, event_id) {
                self.status.metrics.stragglers.inc();
                tracing::warn!(lane, id, %event_id, "a row below the mark: was an id drawn again, after a restore or a TRUNCATE?");
            }
        }
    }

    fn heard(&mut self, news: &News) {
        let now = Instant::now();
        for (topic, usable) in news {
            self.core.topic_seen(*topic, *usable, now);
        }
        // The brokers answer the watch, which reads its secrets anew; a producer that they refuse has old ones.
        let refused = matches!(self.trouble.get(), Some(ProblemClass::KafkaAuthenticationFailed | ProblemClass::KafkaTlsFailed));
        if refused {
            self.retire_producer("the brokers refused its login; a new one reads the secrets again");
        }
    }

    fn database_failed(&mut self, error: &StoreError, now: Instant) {
        self.timers.database = now + RETRY_AFTER;
        self.timers.lease = self.timers.lease.max(now + RETRY_AFTER);
        let problem = error.problem();
        if problem.class == ProblemClass::AuthenticationFailed
            && let Ok(connect) = Connect::relay(&self.options.settings.database, &self.options.secrets)
        {
            self.store.reconnect(&connect);
        }
        self.status.tell(Source::Database, vec![problem]);
    }

    fn database_works(&self) {
        self.status.tell(Source::Database, vec![]);
    }

    // --- the producer

    /// Retires a producer that failed for good, and makes a new one once the last report of the old one is in.
    async fn keep_producer(&mut self, now: Instant) {
        if matches!(&self.sending, Sending::Open(producer) if producer.is_fatal()) {
            self.retire_producer("it gave up so as not to leave a gap; a new one starts at the lowest unsettled rows");
        }
        let sending = std::mem::replace(&mut self.sending, Sending::None { retry_at: now });
        self.sending = match sending {
            Sending::Retiring(producer) if self.core.window().sent() == 0 => {
                destroy(producer).await;
                Sending::None { retry_at: now }
            }
            Sending::None { retry_at } if retry_at <= now && self.stop_by.is_none() => self.open_producer(now),
            other => other,
        };
    }

    fn retire_producer(&mut self, why: &str) {
        let sending = std::mem::replace(&mut self.sending, Sending::None { retry_at: Instant::now() });
        self.sending = match sending {
            Sending::Open(producer) => {
                tracing::warn!("the producer is thrown out: {why}");
                self.trouble.clear();
                producer.purge();
                Sending::Retiring(producer)
            }
            other => other,
        };
    }

    fn open_producer(&self, now: Instant) -> Sending {
        let options = self.options;
        let made = Producer::new(&options.settings.kafka, &options.secrets, &options.pod, self.reports_to.clone(), self.trouble.clone());
        match made {
            Ok(producer) => {
                self.status.tell(Source::Producer, vec![]);
                Sending::Open(producer)
            }
            Err(error) => {
                self.status.tell(Source::Producer, vec![error.problem()]);
                Sending::None { retry_at: now + Duration::from_secs(1) }
            }
        }
    }

    // --- the end

    fn begin_to_stop(&mut self) {
        tracing::info!(rows = self.core.window().rows(), "stopping: finishing what is in flight");
        self.stop_by = Some(Instant::now() + DRAIN_MAX);
        self.core.drain(u32::MAX);
        self.timers.settle = Some(Instant::now());
    }

    fn is_drained(&self, now: Instant) -> bool {
        self.stop_by.is_some_and(|by| now >= by || (self.core.window().rows() == 0 && self.fetch.is_none() && self.lease.is_none()))
    }

    /// Gives everything back, in order: no record may be sent any more once a lane is free.
    async fn leave(mut self) -> Ended {
        self.retire().await;
        let marks: LaneMarksPlan = self.core.marks();
        let goodbye = async {
            self.store.release(self.instance, &marks).await?;
            self.store.unregister(self.instance).await
        };
        match tokio::time::timeout(Duration::from_secs(5), goodbye).await {
            Ok(Ok(())) => tracing::info!("stopped: all lanes are free"),
            _ => tracing::warn!("stopped without telling the database: the lanes are free when the lease runs out"),
        }
        Ended::Stopped
    }

    /// Somebody else may own our lanes: nothing is sent any more, and what was acknowledged is still settled.
    async fn lose_lease(mut self) -> Ended {
        self.status.set_ready(false);
        self.core.lose_lanes();
        self.status.set_lanes(0);
        self.retire().await;
        let _ = tokio::time::timeout(Duration::from_secs(5), self.store.unregister(self.instance)).await;
        Ended::LeaseLost
    }

    /// Throws the producer out, waits for its last reports, and settles what they acknowledge.
    async fn retire(&mut self) {
        let now = Instant::now();
        if let Sending::Open(producer) | Sending::Retiring(producer) = std::mem::replace(&mut self.sending, Sending::None { retry_at: now })
        {
            producer.purge();
            while self.core.window().sent() > 0 {
                let Some(report) = self.reports.recv().await else { break };
                self.reported(report, Instant::now());
            }
            destroy(producer).await;
        }
        let rest = async {
            while let Some(settled) = self.settles.next().await {
                self.settled(settled);
            }
            while let Some(settle) = self.core.next_settle(self.options.settings.batch_size as usize, true) {
                if self.store.settle(&settle.plan).await.is_err() {
                    return;
                }
                self.core.settled(&settle.slots);
            }
        };
        // What stays is sent again by the next owner: a duplicate, never a loss.
        let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    }
}

/// Destroying waits for threads of librdkafka.
async fn destroy(producer: Producer) {
    let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
}

fn start<T>(work: impl Future<Output = T> + Send + 'static) -> Running<T> {
    Some(work.boxed())
}

/// Waits for work that may not be under way, and takes it out when it is done.
async fn take<T>(running: &mut Running<T>) -> Option<T> {
    let done = OptionFuture::from(running.as_mut().map(Pin::new)).await?;
    *running = None;
    Some(done)
}
