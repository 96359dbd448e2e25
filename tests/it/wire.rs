//! Faults on the wire.

use crate::proxy::{Action, At, Fault, Proxy};
use crate::support::{Database, commit, outcome, within};
use graphsink::{Engine, UnitOfWork};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = database.config().database_url(proxy.url_of(&database.url)).statement_timeout(Duration::from_secs(1));
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    for (number, fault) in [
        Fault::CUT_BEFORE_COMMIT,
        Fault::CUT_AFTER_COMMIT,
        Fault::CUT_AFTER_ANSWER,
        Fault::SWALLOW_ANSWER,
        Fault::at(At::Request(3), Action::Cut),
        Fault::at(At::Answer(3), Action::Cut),
        Fault::at(At::Request(3), Action::SecretAbort),
        Fault::at(At::Request(3), Action::Error { severity: "ERROR", code: "40001" }),
        Fault::at(At::Commit, Action::Error { severity: "ERROR", code: "40001" }),
        Fault::at(At::Commit, Action::Error { severity: "FATAL", code: "08P01" }),
        Fault::at(At::CommitAnswer, Action::Error { severity: "FATAL", code: "08P01" }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut unit = UnitOfWork::new();
        unit.dish(format!("dish {number}"));
        proxy.on_next(fault);
        println!("{fault:?} {:?}", outcome(&engine, unit).await);
        within(proxy.faults_happened(number + 1)).await;
    }
    proxy.trickle(true);
    let mut unit = UnitOfWork::new();
    unit.dish("x");
    commit(&engine, unit).await;
    println!("{:?} {:?}", proxy.counts(), engine.stats());
}
