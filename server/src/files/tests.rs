use axum::body::Bytes;
use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;
use crate::store::StoreOptions;
use crate::tenant::Owner;

const SMALL: FilesOptions = FilesOptions {
    max_file_bytes: 1000,
    max_bytes: 1500 + 2 * FILE_BYTES,
};

fn open(dir: &TempDir, options: FilesOptions) -> (Store, Files) {
    let store = Store::open(StoreOptions {
        dir: Some(dir.path().to_owned()),
        ..StoreOptions::default()
    });
    let store = store.unwrap();
    let files = Files::open(&store, options).unwrap().unwrap();
    (store, files)
}

fn key(id: &str) -> Key {
    Key::new(Owner::of_number(1), Kind::File, id)
}

async fn upload(files: &Files, id: &str, bytes: &[u8]) -> Result<(), FilesError> {
    let mut upload = files.begin(id).await?;
    for piece in bytes.chunks(100_000) {
        upload.append(piece).await?;
    }
    assert_eq!(upload.n_bytes(), bytes.len() as u64);
    upload.keep(key(id), b"{}".to_vec(), None).await
}

async fn read(files: &Files, id: &str) -> Vec<u8> {
    let content = files.content(id).await.unwrap();
    let n_bytes = content.n_bytes();
    let blocks: Vec<Bytes> = content.into_stream().try_collect().await.unwrap();
    let bytes = blocks.concat();
    assert_eq!(bytes.len() as u64, n_bytes);
    bytes
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path().join(DIR)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_stay_until_they_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| ((i * i) >> 7) as u8).collect();
    {
        let (_store, files) = open(&dir, FilesOptions::default());
        upload(&files, "file-a", &bytes).await.unwrap();
        upload(&files, "file-b", b"").await.unwrap();
        assert_eq!(read(&files, "file-a").await, bytes);
        assert_eq!(files.n_bytes(), 700_000 + 2 * FILE_BYTES);
    }
    let (store, files) = open(&dir, FilesOptions::default());
    assert_eq!(files.n_bytes(), 700_000 + 2 * FILE_BYTES);
    assert_eq!(read(&files, "file-a").await, bytes);
    assert_eq!(read(&files, "file-b").await, b"");
    assert!(files.delete(key("file-a")).await.unwrap());
    assert!(!files.delete(key("file-a")).await.unwrap());
    assert_eq!(store.get(&key("file-a")).unwrap(), None);
    assert_eq!(
        (files.n_bytes(), names(&dir)),
        (FILE_BYTES, vec!["file-b".to_owned()])
    );
}

#[tokio::test]
async fn what_has_no_row_is_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (_store, files) = open(&dir, FilesOptions::default());
        upload(&files, "file-a", b"kept").await.unwrap();
    }
    for name in ["file-b", "file-c.part", "somebody else's"] {
        fs::write(dir.path().join(DIR).join(name), "half").unwrap();
    }
    let (_store, files) = open(&dir, FilesOptions::default());
    assert_eq!(names(&dir), ["file-a", "somebody else's"]);
    assert_eq!(files.n_bytes(), 4 + FILE_BYTES);
}

#[tokio::test]
async fn files_are_bounded_each_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, files) = open(&dir, SMALL);
    let refused = upload(&files, "file-a", &[0; 1001]).await.unwrap_err();
    assert!(matches!(refused, FilesError::TooLarge { max_bytes: 1000 }));
    upload(&files, "file-a", &[0; 1000]).await.unwrap();
    let refused = upload(&files, "file-b", &[0; 501]).await.unwrap_err();
    assert!(matches!(refused, FilesError::Full { max_bytes } if max_bytes == SMALL.max_bytes));
    // What is being received counts, and what was refused or given up does not.
    let mut first = files.begin("file-b").await.unwrap();
    first.append(&[0; 500]).await.unwrap();
    assert!(upload(&files, "file-c", &[0; 1]).await.is_err());
    drop(first);
    assert_eq!(names(&dir), ["file-a"]);
    upload(&files, "file-c", &[0; 500]).await.unwrap();
    assert_eq!(files.n_bytes(), SMALL.max_bytes);
}

#[tokio::test]
async fn files_without_bytes_are_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let room_for_two = FilesOptions {
        max_file_bytes: 1000,
        max_bytes: 2 * FILE_BYTES,
    };
    {
        let (_store, files) = open(&dir, room_for_two);
        upload(&files, "file-a", b"").await.unwrap();
        let received = files.begin("file-b").await.unwrap();
        let refused = files.begin("file-c").await.unwrap_err();
        assert!(matches!(refused, FilesError::Full { .. }), "{refused}");
        drop(received);
        upload(&files, "file-b", b"").await.unwrap();
        // What could not be created takes no room.
        files.delete(key("file-b")).await.unwrap();
        fs::write(dir.path().join(DIR).join("file-b.part"), "").unwrap();
        let refused = files.begin("file-b").await.unwrap_err();
        assert!(matches!(refused, FilesError::Disk(_)), "{refused}");
        assert_eq!(files.n_bytes(), FILE_BYTES);
        upload(&files, "file-c", b"").await.unwrap();
    }
    let (_store, files) = open(&dir, room_for_two);
    assert_eq!(names(&dir), ["file-a", "file-c"]);
    assert_eq!(files.n_bytes(), 2 * FILE_BYTES);
    assert!(files.begin("file-d").await.is_err());
    files.delete(key("file-a")).await.unwrap();
    files.begin("file-d").await.unwrap();
}

#[tokio::test]
async fn files_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = open(&dir, SMALL);
    let mut short = files.begin("file-a").await.unwrap();
    short.append(b"x").await.unwrap();
    let hour = Some(Duration::from_secs(3600));
    short
        .keep(key("file-a"), b"{}".to_vec(), hour)
        .await
        .unwrap();
    upload(&files, "file-b", b"y").await.unwrap();
    files.sweep(unix_seconds()).await.unwrap();
    assert_eq!(names(&dir), ["file-a", "file-b"]);
    files.sweep(unix_seconds() + 4000).await.unwrap();
    assert_eq!(names(&dir), ["file-b"]);
    assert_eq!(store.entries(Kind::File).unwrap().len(), 1);
}

#[tokio::test]
async fn rows_of_files_make_no_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions {
        dir: Some(dir.path().to_owned()),
        max_bytes: 1000,
        ..StoreOptions::default()
    });
    let store = store.unwrap();
    let files = Files::open(&store, SMALL).unwrap().unwrap();
    upload(&files, "file-a", b"x").await.unwrap();
    for i in 0..20 {
        let key = Key::new(Owner::of_number(1), Kind::Response, i.to_string());
        store.write(vec![Write::put(key, [0; 300])]).await.unwrap();
    }
    assert!(store.get(&key("file-a")).unwrap().is_some());
    assert_eq!(read(&files, "file-a").await, b"x");
}
