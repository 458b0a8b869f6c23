use std::sync::atomic::{AtomicU64, Ordering};

use super::tables::Change;
use super::*;

fn key(owner: u128, kind: Kind, id: &str) -> Key {
    Key::new(Owner::of_number(owner), kind, id)
}

fn put(owner: u128, id: &str, body: &str) -> Write {
    Write::put(key(owner, Kind::Response, id), body)
}

fn ids(store: &Store, owner: u128, after: Option<&str>, ascending: bool) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let owner = Owner::of_number(owner);
    let is_there = store.scan(owner, Kind::Response, after, ascending, &mut |id, _| {
        found.push(id.to_owned());
        true
    });
    is_there.unwrap().then_some(found)
}

/// Checks the tables against each other and counts the objects.
fn check(store: &Store) -> u64 {
    let shelf = store.shared.shelf.read().unwrap();
    let transaction = shelf.as_ref().unwrap().begin_write().unwrap();
    let n_objects = Change::begin(&transaction).unwrap().check();
    transaction.abort().unwrap();
    n_objects
}

#[tokio::test]
async fn owners_see_their_own_objects_only() {
    let store = Store::open(StoreOptions::default()).unwrap();
    store.write(vec![put(1, "a", "one")]).await.unwrap();
    assert_eq!(
        store.get(&key(1, Kind::Response, "a")).unwrap().as_deref(),
        Some(&b"one"[..])
    );
    assert_eq!(store.get(&key(2, Kind::Response, "a")).unwrap(), None);
    assert_eq!(store.get(&key(1, Kind::Events, "a")).unwrap(), None);
    let other = || key(2, Kind::Response, "a");
    let edit: Edit = Box::new(|_| Some(Vec::new()));
    let writes = vec![
        Write::Delete { key: other() },
        Write::Edit { key: other(), edit },
    ];
    assert_eq!(store.write(writes).await.unwrap(), [false, false]);
    assert_eq!(ids(&store, 2, None, true).unwrap(), [""; 0]);
    assert_eq!(ids(&store, 1, None, true).unwrap(), ["a"]);
}

#[tokio::test]
async fn objects_are_listed_by_age_either_way() {
    let store = Store::open(StoreOptions::default()).unwrap();
    for id in ["b", "a", "d", "c"] {
        store.write(vec![put(1, id, "x")]).await.unwrap();
    }
    // What is written again keeps its place.
    store.write(vec![put(1, "b", "longer")]).await.unwrap();
    let list = |after, ascending| ids(&store, 1, after, ascending);
    assert_eq!(list(None, true).unwrap(), ["b", "a", "d", "c"]);
    assert_eq!(list(Some("a"), true).unwrap(), ["d", "c"]);
    assert_eq!(list(None, false).unwrap(), ["c", "d", "a", "b"]);
    assert_eq!(list(Some("a"), false).unwrap(), ["b"]);
    assert_eq!(list(Some("nothing"), true), None);
    assert_eq!(check(&store), 4);
}

#[tokio::test]
async fn objects_end() {
    static NOW: AtomicU64 = AtomicU64::new(100);
    let store = Store::open(StoreOptions {
        ttl: Some(Duration::from_secs(10)),
        clock: || NOW.load(Ordering::Relaxed),
        ..StoreOptions::default()
    });
    let store = store.unwrap();
    store
        .write(vec![put(1, "a", "x"), put(1, "b", "x")])
        .await
        .unwrap();
    NOW.store(109, Ordering::Relaxed);
    let edit: Edit = Box::new(|body| Some([body, b"y"].concat()));
    let at = || key(1, Kind::Response, "b");
    store
        .write(vec![Write::Edit { key: at(), edit }])
        .await
        .unwrap();
    NOW.store(110, Ordering::Relaxed);
    assert_eq!(store.get(&key(1, Kind::Response, "a")).unwrap(), None);
    assert_eq!(ids(&store, 1, None, true).unwrap(), ["b"]);
    assert_eq!(store.get(&at()).unwrap().unwrap(), b"xy");
    assert_eq!(check(&store), 2, "nothing was written since");
    store.write(vec![put(1, "c", "x")]).await.unwrap();
    assert_eq!(check(&store), 2);
}

#[tokio::test]
async fn what_ends_first_makes_room() {
    let store = Store::open(StoreOptions {
        max_bytes: 1000,
        ..StoreOptions::default()
    });
    let store = store.unwrap();
    for i in 0..20 {
        let id = format!("{i:02}");
        store
            .write(vec![put(1, &id, &"x".repeat(100))])
            .await
            .unwrap();
        assert!(store.n_bytes().unwrap() <= 1000);
    }
    assert_eq!(
        ids(&store, 1, None, true).unwrap(),
        ["16", "17", "18", "19"]
    );
    let refused = store.write(vec![put(1, "big", &"x".repeat(1000))]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    assert_eq!(check(&store), 4);
}

#[tokio::test]
async fn a_directory_is_one_stores_and_keeps_its_objects() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let options = StoreOptions {
        dir: Some(dir.clone()),
        ..StoreOptions::default()
    };
    let store = Store::open(options.clone()).unwrap();
    let writes = (0..100).map(|i| store.write(vec![put(1, &i.to_string(), "x")]));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    let refused = Store::open(options.clone()).unwrap_err();
    assert!(
        matches!(refused, StoreError::InUse { .. }),
        "{refused} in {}",
        dir.display()
    );
    drop(store);
    let store = Store::open(options).unwrap();
    assert_eq!(check(&store), 100);
}
