//! Injects the faults of the schedule.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graphsink::ActorKind;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::Client;

use crate::AnyError;
use crate::engines::Engines;
use crate::ledger::Ledger;
use crate::producer::Mischief;
use crate::proxy::{self, Action, At, Proxy};
use crate::schedule::{Fault, Kind};
use crate::stage::{ROLE, Stage, privileges};

/// The time limit for a fault to find a commit that it can disturb.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(3);
const ACTORS: [ActorKind; 5] = [
    ActorKind::Supervisor,
    ActorKind::EntityBatcher,
    ActorKind::ConnectionBatcher,
    ActorKind::MentionBatcher,
    ActorKind::TransactionCoordinator,
];
const TABLES: [&str; 4] = ["mentions", "connections", "entities", "graphsink_attempts"];
/// Marks statements of clients other than the engines, so that the server's log shows the parties of a deadlock.
pub(crate) const HOSTILE: &str = "/* hostile */";

#[derive(Debug)]
pub(crate) struct Injector {
    pub(crate) stage: Arc<Stage>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) proxy: Proxy,
    pub(crate) mischief: Arc<Mischief>,
    pub(crate) ledger: Arc<Ledger>,
    injected: Mutex<BTreeMap<&'static str, u64>>,
    /// Faults of one transaction: one at a time, so that each meets its own transaction.
    wire: tokio::sync::Mutex<()>,
}

impl Injector {
    pub(crate) fn new(
        stage: Arc<Stage>,
        engines: Arc<Engines>,
        proxy: Proxy,
        mischief: Arc<Mischief>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            stage,
            engines,
            proxy,
            mischief,
            ledger,
            injected: Mutex::default(),
            wire: tokio::sync::Mutex::default(),
        }
    }

    /// Faults that took place, by kind.
    pub(crate) fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.injected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Injects `faults`; returns when all of them are over. The schedule's clock is at `time` at the moment `start`.
    pub(crate) async fn run(self: Arc<Self>, faults: Vec<Fault>, start: Instant, time: Duration) {
        let mut under_way = JoinSet::new();
        for fault in faults {
            sleep_until(start + (fault.at.saturating_sub(time))).await;
            under_way.spawn(Arc::clone(&self).inject(fault));
        }
        while let Some(ended) = under_way.join_next().await {
            if let Err(error) = ended {
                self.ledger.violation(format!("the soak failed to inject a fault: {error}"));
            }
        }
        self.proxy.disarm();
        self.proxy.release();
    }

    async fn inject(self: Arc<Self>, fault: Fault) {
        tracing::info!(%fault, "begins");
        let attempt = self.attempt(&fault).await;
        tracing::info!(%fault, took_place = ?attempt.as_ref().ok(), "is over");
        match attempt {
            Ok(true) => {
                let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
                *injected.entry(fault.kind.as_str()).or_default() += 1;
            }
            // There was no transaction that it could have disturbed.
            Ok(false) => {}
            Err(error) => self.ledger.violation(format!("the soak failed to inject a fault ({fault}): {error}")),
        }
    }

    /// Injects a fault; returns whether it took place.
    #[allow(clippy::too_many_lines)]
    async fn attempt(&self, fault: &Fault) -> Result<bool, AnyError> {
        let proxy = &self.proxy;
        match fault.kind {
            Kind::CutAll => proxy.cut_all(),
            Kind::HalfOpen => proxy.half_open_all(),
            Kind::CutBeforeCommit => return Ok(self.spoil(proxy::Fault::CUT_BEFORE_COMMIT).await),
            Kind::CutAfterCommit => return Ok(self.spoil(proxy::Fault::CUT_AFTER_COMMIT).await),
            Kind::CutCommitAnswer => return Ok(self.spoil(proxy::Fault::CUT_AFTER_ANSWER).await),
            Kind::SwallowAnswer => return Ok(self.spoil(proxy::Fault::SWALLOW_ANSWER).await),
            Kind::HoldCommit => {
                return Ok(self.spoil(proxy::Fault::at(At::Commit, Action::Delay(fault.lasts))).await);
            }
            Kind::AnyMessage => {
                let mut random = StdRng::seed_from_u64(fault.choice.into());
                return Ok(self.spoil(proxy::Fault::random(&mut random, fault.lasts)).await);
            }
            Kind::Fence => {
                let mut random = StdRng::seed_from_u64(fault.choice.into());
                let fences = (0..=fault.choice % 3).map(|_| Some(proxy::Fault::random(&mut random, fault.lasts)));
                proxy.plan_fences(fences.collect::<Vec<_>>());
                let lost = [proxy::Fault::CUT_AFTER_COMMIT, proxy::Fault::CUT_BEFORE_COMMIT];
                return Ok(self.spoil(fault.choose(&lost)).await);
            }
            Kind::Stall => {
                proxy.stall(true);
                sleep(fault.lasts).await;
                proxy.stall(false);
            }
            Kind::Trickle => {
                proxy.trickle(true);
                sleep(fault.lasts).await;
                proxy.trickle(false);
            }
            Kind::Refuse => {
                proxy.refuse(true);
                proxy.cut_all();
                sleep(fault.lasts).await;
                proxy.refuse(false);
            }
            Kind::Slow => {
                proxy.set_delay(Some(fault.choose(&[1, 5, 20, 60].map(Duration::from_millis))));
                sleep(fault.lasts).await;
                proxy.set_delay(None);
            }
            Kind::Crash => self.stage.crash(fault.lasts).await?,
            Kind::Restart => self.stage.restart().await?,
            Kind::KillActor => {
                self.engines.pick(fault.choice as usize / ACTORS.len()).kill_actor(fault.choose(&ACTORS));
            }
            Kind::RestartEngine => self.engines.restart(fault.choice as usize, fault.lasts).await,
            Kind::DropReceipts => misbehave(&self.mischief.drop_receipts, fault.lasts).await,
            Kind::CancelSubmits => misbehave(&self.mischief.cancel_submits, fault.lasts).await,
            Kind::Exhaust
            | Kind::LockTable
            | Kind::HostileRows
            | Kind::Terminate
            | Kind::TerminateInCommit
            | Kind::ReadOnly
            | Kind::Raise
            | Kind::RaiseAtCommit
            | Kind::Revoke => return self.at_the_server(fault).await,
        }
        Ok(true)
    }

    /// Faults that another client of the server causes, during which the server stays up.
    #[allow(clippy::too_many_lines)]
    async fn at_the_server(&self, fault: &Fault) -> Result<bool, AnyError> {
        let up = self.stage.up().await;
        let admin = self.stage.admin(&up).await?;
        match fault.kind {
            Kind::Terminate => Ok(terminate(&admin, "random() < 0.5").await? > 0),
            Kind::TerminateInCommit => {
                // Commits last long enough for the administrator to find some.
                let seconds = fault.lasts.as_secs_f64();
                let switch = Switch::set(&admin, "commit", None, seconds, None).await?;
                let mut terminated = 0;
                let end = Instant::now() + fault.lasts * 2;
                while terminated == 0 && Instant::now() < end {
                    sleep(Duration::from_millis(20)).await;
                    terminated = terminate(&admin, "query = 'commit' and state = 'active'").await?;
                }
                switch.unset(&admin).await?;
                Ok(terminated > 0)
            }
            Kind::Exhaust => {
                let mut taken = self.stage.take_all_connections(&up).await;
                terminate(&admin, "random() < 0.7").await?;
                let end = Instant::now() + fault.lasts;
                while Instant::now() < end {
                    // Rows of lost commits become visible at once.
                    taken.extend(self.stage.take_all_connections(&up).await);
                    sleep(Duration::from_millis(50)).await;
                }
                Ok(true)
            }
            Kind::LockTable => {
                let mode = if fault.choice.is_multiple_of(3) { "access exclusive" } else { "exclusive" };
                let table = fault.choose(&TABLES);
                admin.batch_execute(&format!("begin; lock table {table} in {mode} mode {HOSTILE}")).await?;
                sleep(fault.lasts).await;
                admin.batch_execute("rollback").await?;
                Ok(true)
            }
            Kind::HostileRows => hostile_rows(&admin, fault).await,
            Kind::ReadOnly => {
                let mut switches = Vec::new();
                for table in TABLES {
                    switches.push(Switch::set(&admin, table, Some("25006"), 0.0, None).await?);
                }
                sleep(fault.lasts).await;
                for switch in switches {
                    switch.unset(&admin).await?;
                }
                Ok(true)
            }
            Kind::Raise => {
                let sqlstate = fault.choose(&["40001", "55P03", "53100", "57014", "XX000", "40P01", "08006", "53200"]);
                // More failures with an unknown error than this would be charged to a unit.
                let raised_max = (sqlstate == "XX000").then_some(1);
                let switch = Switch::set(&admin, fault.choose(&TABLES), Some(sqlstate), 0.0, raised_max).await?;
                sleep(fault.lasts).await;
                switch.unset(&admin).await?;
                Ok(true)
            }
            Kind::RaiseAtCommit => {
                let sqlstate = fault.choose(&["40001", "53100", "57014", "40003", "08007", "25006"]);
                let switch = Switch::set(&admin, "commit", Some(sqlstate), 0.0, None).await?;
                sleep(fault.lasts).await;
                switch.unset(&admin).await?;
                Ok(true)
            }
            Kind::Revoke => {
                let table = fault.choose(&TABLES);
                admin.batch_execute(&privileges("revoke", "from", table)).await?;
                sleep(fault.lasts).await;
                admin.batch_execute(&privileges("grant", "to", table)).await?;
                Ok(true)
            }
            _ => unreachable!("the others need no connection"),
        }
    }

    /// Arms a fault for the next transaction; returns whether there was one.
    async fn spoil(&self, fault: proxy::Fault) -> bool {
        let _turn = self.wire.lock().await;
        let before = self.proxy.counts().faults.values().sum::<usize>();
        self.proxy.on_next(fault);
        let happened = timeout(TRANSACTION_PATIENCE, self.proxy.faults_happened(before + 1)).await.is_ok();
        if !happened {
            self.proxy.disarm();
        }
        happened
    }
}

async fn misbehave(kind: &AtomicUsize, lasts: Duration) {
    kind.fetch_add(1, Ordering::Relaxed);
    sleep(lasts).await;
    kind.fetch_sub(1, Ordering::Relaxed);
}

/// Terminates backends of the engines; returns their number.
async fn terminate(admin: &Client, which: &str) -> Result<i64, AnyError> {
    let query = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{ROLE}' and {which} {HOSTILE}"
    );
    Ok(admin.query_one(&query, &[]).await?.get(0))
}

/// Locks rows one by one in the reverse of the engines' order. This causes deadlocks, which the engines must survive.
async fn hostile_rows(admin: &Client, fault: &Fault) -> Result<bool, AnyError> {
    // Rows that many units share, without marks.
    let (table, id, which, order) = fault.choose(&[
        ("entities", "entity_id", "name not like 'mark %'", "type, name"),
        ("connections", "connection_id", "mention_count > 1", "restaurant_id, dish_or_category_id, dish_attributes"),
    ]);
    let descending = order.replace(',', " desc,") + " desc";
    let ids = format!("select {id} from {table} where {which} order by {descending} {HOSTILE}");
    let rows = admin.query(&ids, &[]).await?;
    let lock = format!("select from {table} where {id} = $1 for update {HOSTILE}");
    let lock = admin.prepare(&lock).await?;
    admin.batch_execute("begin; set local lock_timeout = '3s'").await?;
    let end = Instant::now() + fault.lasts;
    for row in rows {
        // This client is the victim of a deadlock as often as an engine.
        if Instant::now() > end || admin.execute(&lock, &[&row.get::<_, uuid::Uuid>(0)]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    admin.batch_execute("rollback").await?;
    Ok(true)
}

/// A switch for errors on demand, switched on.
struct Switch(i64);

impl Switch {
    async fn set(
        admin: &Client,
        place: &str,
        sqlstate: Option<&str>,
        seconds: f64,
        raised_max: Option<i64>,
    ) -> Result<Self, AnyError> {
        let insert = "insert into soak_switch (place, sqlstate, seconds, raised_max)
                      select $1::text, $2::text, $3::float8, last_value + $4::bigint from soak_raised returning id";
        Ok(Self(admin.query_one(insert, &[&place, &sqlstate, &seconds, &raised_max]).await?.get(0)))
    }

    async fn unset(self, admin: &Client) -> Result<(), AnyError> {
        admin.execute("delete from soak_switch where id = $1", &[&self.0]).await?;
        Ok(())
    }
}
