//! The checks: some run all the time, the others once the load has settled.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use graphsink::Outcome;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::AnyError;
use crate::database::{self, check_group_by};
use crate::engines::is_settled;
use crate::ledger::{MARK, Truth, Unit, mark};
use crate::log::Log;
use crate::model::{self, Ids, Record};
use crate::producer::{HELD_PLACE, Load};
use crate::stage::{ROLE, Stage};

/// The time limit until no unit is under way.
const PATIENCE: Duration = Duration::from_mins(1);
/// The time limit for an engine's first commit after the last fault, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(30);
/// The pause between two checks under load.
const PERIOD: Duration = Duration::from_secs(1);

/// The numbers of the engines' sessions that are active or in a transaction, and of all their sessions.
const SESSIONS: &str = "
    select pid, state, coalesce(query, ''), state not in ('idle', 'disabled') as busy
    from pg_stat_activity where usename = $1 and backend_type = 'client backend'";

/// The rows of every unit in the database: its restaurant and its dish, its connection, its mention.
const MARKS: &str = "
    select e.name, count(*) = 2 and bool_and(c.connection_id is not null), (array_agg(m.mention_id))[1]
    from entities e
    left join connections c on e.entity_id in (c.restaurant_id, c.dish_or_category_id)
    left join mentions m on m.connection_id = c.connection_id and m.source_id = e.name
    where e.name like $1 || '%'
    group by e.name";

/// Deletes the rows of checked units, which would only make every later check longer.
const FORGET_MARKS: &str = "
    begin;
    create temporary table marked on commit drop as select entity_id from entities where name like 'mark %';
    delete from mentions m using connections c, marked e
        where m.connection_id = c.connection_id and c.restaurant_id = e.entity_id;
    delete from connections c using marked e where c.restaurant_id = e.entity_id;
    delete from entities e using marked m where e.entity_id = m.entity_id;
    commit";

/// Checks one database against one ledger.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) stage: Arc<Stage>,
    pub(crate) load: Arc<Load>,
    pub(crate) log: Log,
    /// The records of the pool that are in the database.
    pub(crate) said: Vec<bool>,
    /// Records beside the pool.
    pub(crate) always: Vec<Record>,
}

/// Checks the figures again and again until `stop`, under load.
pub(crate) async fn watch(stage: Arc<Stage>, load: Arc<Load>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        tracing::info!(totals = ?load.ledger.totals(), "so far");
        {
            let up = stage.up().await;
            match stage.admin(&up).await {
                Ok(client) => {
                    let as_of = stage.as_of;
                    // This waits only while another session has a table locked.
                    let look = tokio::spawn(async move {
                        client.batch_execute("begin isolation level repeatable read read only").await?;
                        let differences = check_group_by(&client, as_of).await;
                        client.batch_execute("commit").await?;
                        Ok::<_, tokio_postgres::Error>(differences)
                    });
                    match look.await {
                        Ok(Ok(differences)) => {
                            load.ledger.check_none("under load, figures differ from GROUP BY", &differences);
                        }
                        Ok(Err(error)) => load.ledger.violation(format!("the soak failed to check: {error:?}")),
                        Err(error) => load.ledger.violation(format!("figures cannot be read: {}", panic_text(error))),
                    }
                }
                Err(error) => load.ledger.violation(format!("the soak failed to connect: {error}")),
            }
        }
        sleep(PERIOD).await;
    }
}

/// Every engine recovers by itself when faults are over: it commits rows that exist already.
pub(crate) async fn engines_come_back(load: &Load, always: &[Record]) {
    for engine in load.engines.all() {
        let committed = async {
            loop {
                let Ok(receipt) = engine.submit(model::unit(always, &Ids::default())).await else { return false };
                load.ledger.count(|totals| {
                    (totals.submitted, totals.resubmitted) = (totals.submitted + 1, totals.resubmitted + 1);
                });
                match receipt.await {
                    Outcome::Committed(_) => {
                        load.ledger.count(|totals| totals.committed += 1);
                        return true;
                    }
                    Outcome::Rejected(_) => {
                        load.ledger.count(|totals| totals.rejected += 1);
                        return false;
                    }
                    Outcome::Unavailable(_) => load.ledger.count(|totals| totals.unavailable += 1),
                }
            }
        };
        let back = timeout(RECOVERY, committed).await;
        load.ledger.check(back == Ok(true), || {
            format!(
                "an engine did not recover within {RECOVERY:?} after the last fault: {back:?}, {:?}",
                engine.stats()
            )
        });
        if back.is_err() {
            // Its unit has an outcome that is not awaited.
            load.ledger.count(|totals| totals.receipts_dropped += 1);
        }
    }
}

impl Checker {
    /// Waits until no unit is under way, and checks everything.
    pub(crate) async fn checkpoint(&mut self) -> Result<(), AnyError> {
        self.settle().await;
        let stage = Arc::clone(&self.stage);
        let up = stage.up().await;
        let client = stage.admin(&up).await?;
        self.sessions_are_idle(&client).await?;
        self.books_balance();
        let units = self.load.ledger.take_units();
        let whole = self.marks(&client, &units).await?;
        let client = self.rows(client, &whole).await?;
        client.batch_execute(FORGET_MARKS).await?;
        let ids = database::ids(&client).await;
        *self.load.ids.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ids);
        let engines = self.load.engines.sums(true);
        self.log.read(&up, &self.load.ledger)?;
        // Each session leaves the row of its last transaction, and a lost commit leaves that row and a fence.
        let attempts: i64 = client.query_one("select count(*) from graphsink_attempts", &[]).await?.get(0);
        let sessions = self.log.sessions;
        self.load.ledger.check(attempts as u64 <= 2 * sessions, || {
            format!("{attempts} attempts are left of {} transactions in {sessions} sessions", engines.epochs)
        });
        Ok(())
    }

    /// Checks that every unit has its outcome, and no room is taken.
    async fn settle(&self) {
        let ledger = &self.load.ledger;
        for engine in self.load.engines.all() {
            let flushed = timeout(PATIENCE, engine.flush()).await.is_ok();
            ledger.check(flushed, || format!("an engine has units in flight for {PATIENCE:?}: {:?}", engine.stats()));
            let stats = engine.stats();
            ledger.check(is_settled(&stats), || format!("an engine that was flushed has units in flight: {stats:?}"));
        }
    }

    /// Checks that no session of an engine is in a transaction. Sessions may need a moment to notice their client's
    /// end.
    async fn sessions_are_idle(&self, client: &Client) -> Result<(), AnyError> {
        let end = Instant::now() + PATIENCE;
        loop {
            let rows = client.query(SESSIONS, &[&ROLE]).await?;
            let busy: Vec<String> = rows
                .iter()
                .filter(|row| row.get(3))
                .map(|row| {
                    format!(
                        "{}: {:?} {:.60}",
                        row.get::<_, i32>(0),
                        row.get::<_, Option<&str>>(1),
                        row.get::<_, &str>(2)
                    )
                })
                .collect();
            if busy.is_empty() || Instant::now() > end {
                self.load.ledger.check_none("sessions of engines without work are busy", &busy);
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Checks that the engines' counts equal the producers'.
    fn books_balance(&self) {
        let (told, heard) = (self.load.engines.sums(true), self.load.ledger.totals());
        let ledger = &self.load.ledger;
        ledger.check(told.submitted == heard.submitted, || format!("units accepted: {told:?}, {heard:?}"));
        let outcomes = heard.committed + heard.rejected + heard.unavailable + heard.receipts_dropped;
        ledger.check(outcomes == heard.submitted, || format!("units with an outcome: {heard:?}"));
        let dropped = heard.receipts_dropped;
        for (kind, told, heard) in [
            ("committed", told.committed, heard.committed),
            ("rejected", told.rejected, heard.rejected),
            ("unavailable", told.unavailable, heard.unavailable),
        ] {
            let fits = (heard..=heard + dropped).contains(&told);
            ledger.check(fits, || {
                format!("units {kind}: engines say {told}, producers {heard}, and {dropped} dropped their receipts")
            });
        }
    }

    /// Checks that each unit is in the database completely or not at all, as its outcome says; returns the numbers of
    /// those that are.
    async fn marks(&mut self, client: &Client, units: &BTreeMap<u64, Unit>) -> Result<Vec<u64>, AnyError> {
        let mut found: BTreeMap<String, (bool, Option<Uuid>)> = BTreeMap::new();
        for row in client.query(MARKS, &[&MARK]).await? {
            found.insert(row.get(0), (row.get(1), row.get(2)));
        }
        let mut whole = Vec::new();
        let (mut halves, mut wrong) = (Vec::new(), Vec::new());
        for (number, unit) in units {
            let rows = found.remove(&format!("{MARK}{number}"));
            if let Some((false, _) | (_, None)) = rows {
                halves.push(format!("unit {number}: {:?}, {rows:?} (entities and connection, mention)", unit.truth));
            }
            let fits = match unit.truth {
                Truth::Whole => rows.is_some() && (unit.mark.is_none() || rows.and_then(|rows| rows.1) == unit.mark),
                Truth::Nothing => rows.is_none(),
                Truth::Either => true,
                // It has no outcome, and is reported already.
                Truth::Open => false,
            };
            if !fits {
                wrong.push(format!("unit {number}: {:?}, mark {:?}, in the database {rows:?}", unit.truth, unit.mark));
            }
            if rows.is_some() {
                whole.push(*number);
                unit.records.iter().for_each(|record| self.said[*record] = true);
            }
        }
        let strangers: Vec<String> = found.into_keys().collect();
        let ledger = &self.load.ledger;
        ledger.check_none("units are half written", &halves);
        ledger.check_none("units differ from their outcomes", &wrong);
        ledger.check_none("rows of units that were checked before", &strangers);
        let query = "select name from entities where name like 'poison %' or name like 'refused %'";
        let traces: Vec<String> = client.query(query, &[]).await?.iter().map(|row| row.get(0)).collect();
        ledger.check_none("rejected units left rows", &traces);
        Ok(whole)
    }

    /// Compares the whole database, row by row.
    async fn rows(&self, client: Client, whole: &[u64]) -> Result<Client, AnyError> {
        let as_of = self.stage.as_of;
        let read = tokio::spawn(async move {
            let graph = database::read(&client).await;
            let differences = check_group_by(&client, as_of).await;
            (client, graph, differences)
        });
        let (client, graph, of_figures) = match read.await {
            Ok(read) => read,
            Err(error) => {
                let text = panic_text(error);
                self.load.ledger.violation(format!("the database cannot be read: {text}"));
                return Err(text.into());
            }
        };
        self.load.ledger.check_none("figures differ from GROUP BY", &of_figures);
        let marks: Vec<Record> = whole.iter().map(|number| mark(*number, as_of)).collect();
        let pool = self.load.pool.iter().zip(&self.said).filter(|(_, said)| **said).map(|(record, _)| record);
        let records: Vec<&Record> = pool.chain(&marks).chain(&self.always).collect();
        let merged = self.load.merged.lock().unwrap_or_else(PoisonError::into_inner);
        let model = merged.graph_with(records, as_of);
        drop(merged);
        self.load.ledger.check_none("the database differs from the model", &database::differences(&model, &graph));
        Ok(client)
    }
}

/// The restaurant with the Google id that bad units claim.
pub(crate) fn holder(as_of: model::Time) -> Record {
    Record::Entity(model::EntitySpec {
        key: model::key(graphsink::EntityType::Restaurant, "holder"),
        by_id: false,
        aliases: Vec::new(),
        attributes: Vec::new(),
        place: Some(model::PlaceSpec {
            location: None,
            address: None,
            google_place_id: Some(HELD_PLACE.to_owned()),
            metadata: None,
            observed_at: as_of,
        }),
    })
}

/// The message of a task that panicked.
fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "the task was cancelled".to_owned() };
    text_of(&*payload).to_owned()
}

/// The text of a panic.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}
