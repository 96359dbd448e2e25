//! The question what became of a commit, asked on a connection that is as dead as the one that lost it.

use std::time::Duration;

use graphsink::Engine;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::proxy::{Action, At, Fault, Proxy};
use crate::support::{Database, as_of, outcome, seed, within};

/// The server keeps silent, and nothing says that the connection is gone. Another one is tried long before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_gets_no_answer_is_asked_again_on_another_connection() {
    let records = generate::sample(seed("a silent fence"), Space::tiny(as_of()), 20);
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = database
        .config()
        .database_url(proxy.url_of(&database.url))
        .connect_timeout(Duration::from_secs(1))
        .outcome_deadline(Duration::from_secs(9));
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    proxy.plan_fences([Some(Fault::at(At::Request(0), Action::Stall))]);
    proxy.on_next(Fault::CUT_AFTER_COMMIT);
    let outcome = outcome(&engine, model::unit(&records, &Ids::default())).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
    assert_eq!(proxy.counts().faults.values().sum::<usize>(), 2, "{:?}", proxy.counts());
    let client = database.client().await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    let stats = within(engine.shutdown(Duration::from_secs(10))).await.stats;
    assert_eq!((stats.units_committed, stats.rows_in_flight), (1, 0), "{stats:?}");
}
