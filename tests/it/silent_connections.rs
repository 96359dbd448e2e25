//! Sessions that never answer and never end, where more than one transaction depends on them.

use std::time::Duration;

use graphsink::{Engine, Outcome};

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::proxy::{Action, At, Fault, Proxy};
use crate::support::{Database, as_of, commit, outcome, seed, within};

/// An engine behind a proxy, and the records to write.
async fn scene(test: &str, outcome_deadline: Duration) -> (Database, Proxy, Engine, Vec<Record>) {
    let records = generate::sample(seed(test), Space::tiny(as_of()), 20);
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = database
        .config()
        .database_url(proxy.url_of(&database.url))
        .in_flight_commits(1)
        .connect_timeout(Duration::from_secs(1))
        .outcome_deadline(outcome_deadline);
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    (database, proxy, engine, records)
}

async fn end(database: &Database, engine: &Engine, records: &[Record]) {
    let client = database.client().await;
    assert_same(&model::graph(records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    let stats = within(engine.shutdown(Duration::from_secs(10))).await.stats;
    let outcomes = stats.units_committed + stats.units_rejected + stats.units_unavailable;
    assert_eq!((outcomes, stats.rows_in_flight), (stats.units_submitted, 0), "{stats:?}");
}

/// The fence of a commit is asked on a session that is as dead as the one that lost the commit: another session is
/// tried long before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_question_of_the_fence_is_asked_again_on_another_session() {
    let (database, proxy, engine, records) = scene("a silent fence", Duration::from_secs(9)).await;
    proxy.plan_fences([Some(Fault::at(At::Request(0), Action::Stall))]);
    proxy.on_next(Fault::CUT_AFTER_COMMIT);
    commit(&engine, model::unit(&records, &Ids::default())).await;
    assert_eq!(proxy.counts().faults.values().sum::<usize>(), 2, "{:?}", proxy.counts());
    end(&database, &engine, &records).await;
}

/// The server accepts a connection, and stops before it answers the login. When it is back, such a connection must not
/// block another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_login_does_not_block_the_engines_recovery() {
    let (database, proxy, engine, records) = scene("a silent login", Duration::from_secs(5)).await;
    let unit = || model::unit(&records, &Ids::default());
    proxy.stall(true);
    proxy.cut_all();
    let before = proxy.counts().connections;
    let receipt = engine.submit(unit()).await.unwrap();
    while proxy.counts().connections == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.half_open_all();
    proxy.stall(false);
    // The first unit meets the dead connection; the engine's second and third attempts are tested.
    let mut outcomes = vec![within(receipt).await];
    while !matches!(outcomes.last(), Some(Outcome::Committed(_))) && outcomes.len() < 4 {
        outcomes.push(outcome(&engine, unit()).await);
    }
    assert!(matches!(outcomes.last(), Some(Outcome::Committed(_))), "{outcomes:?}");
    end(&database, &engine, &records).await;
}
