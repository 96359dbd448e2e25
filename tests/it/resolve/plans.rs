//! The indexes that the server uses for lookups, from its own statistics.

use graphsink::resolve::{Resolver, ResolverSettings};

use super::place;
use crate::support::Database;

/// Without table statistics, with all read indexes, on a table that just grew.
#[tokio::test]
async fn lookups_use_their_indexes_and_scan_no_table() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute("alter table entities set (autovacuum_enabled = off)").await.unwrap();
    let fill = "insert into entities (entity_id, name, type, aliases, address, place_observed_at)
                select gen_random_uuid(), md5(i::text), 'restaurant', array['alias ' || i], i || ' Oak St', now()
                from generate_series(1, 20000) i";
    client.batch_execute(fill).await.unwrap();
    let scans = async || -> Vec<(String, i64)> {
        // Counts of another session arrive when it ends its transaction and is idle for a while, or ends.
        let query = "select indexrelname::text, idx_scan from pg_stat_user_indexes where relname = 'entities'
                     union all select 'entities', seq_scan from pg_stat_user_tables where relname = 'entities'
                     order by 1";
        client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let count = |scans: &[(String, i64)], name: &str| scans.iter().find(|(index, _)| index == name).unwrap().1;
    let resolver = Resolver::connect(&database.config().build().unwrap(), ResolverSettings::default().connections(1))
        .await
        .unwrap();
    // Draws the sample of names. It counts as a scan of the table, but the test is not about it.
    resolver.find(&[place("nothing")]).await.unwrap();
    let mut before = scans().await;
    let names: Vec<_> = (1..=50)
        .flat_map(|i| [place(&format!("alias {i}")), place(&format!("blue door {i}")).address(format!("{i} Oak St"))])
        .collect();
    resolver.find(&names).await.unwrap();
    // Ends the session, which reports its counts.
    drop(resolver);
    let settled = async {
        loop {
            let after = scans().await;
            if count(&after, "entities_aliases_idx") >= count(&before, "entities_aliases_idx") + 100 {
                return after;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let after = crate::support::within(settled).await;
    // The sample of the first lookup.
    let sampled = count(&after, "entities") - count(&before, "entities");
    assert!(sampled <= 1, "{sampled} scans of the table");
    before.retain(|(index, _)| index != "entities");
    for (index, scans) in before {
        let used = count(&after, &index) - scans;
        let expected = [
            "entities_aliases_idx",
            "entities_name_type_key",
            "entities_name_trgm_idx",
            "entities_name_backwards_idx",
            "entities_house_number_idx",
        ];
        assert_eq!(used > 0, expected.contains(&index.as_str()), "{index} was read {used} times");
        assert!(used < 1_000, "{index} was read {used} times");
    }
}
