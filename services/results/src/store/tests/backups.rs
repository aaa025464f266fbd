//! Copies, and copies put back.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn restore_options(from: &TempDir, backup: &Path, into: &TempDir) -> RestoreOptions {
    RestoreOptions {
        backup: backup.to_owned(),
        database: database(into),
        erasures: from.path().join("erasures.log"),
        erasure_key: from.path().join("erasure.key"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_consistent_and_ends_while_writes_go_on() {
    let (folder, store) = new_store();
    let many = (0..1_000).map(|n| prediction(&format!("before-{n}"), "u1")).collect();
    store.put_many(many).await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut written = 0;
            while stopped.try_recv().is_err() {
                // Pairs, so that half of one would show.
                let pair = ["a", "b"].map(|half| prediction(&format!("{written}-{half}"), half));
                store.put_many(pair.into()).await.unwrap();
                written += 1;
            }
            written
        }
    });
    let mut copies = Vec::new();
    for number in 0..5 {
        let path = folder.path().join(format!("copy-{number}.db"));
        let backup = store.backup(path.clone()).await.unwrap();
        assert_eq!(backup.bytes, std::fs::metadata(&path).unwrap().len());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        copies.push(path);
    }
    stop.send(()).unwrap();
    assert!(writer.await.unwrap() > 0);
    for copy in copies {
        check_integrity(&copy);
        let connection = rusqlite::Connection::open(&copy).unwrap();
        let count = |user: &str| -> i64 {
            let sql = "SELECT COUNT(*) FROM predictions WHERE user_id = ?1";
            connection.query_row(sql, [user], |row| row.get(0)).unwrap()
        };
        assert_eq!(count("u1"), 1_000);
        assert_eq!(count("a"), count("b"));
        drop(connection);
        // It is a database like any other.
        open_with(&StoreOptions::new(&copy).beside(&copy), &Readiness::new()).close().await;
    }
}

impl StoreOptions {
    /// With receipts of its own, for two stores in one folder.
    fn beside(mut self, path: &Path) -> Self {
        self.erasures = files::beside(path, ".erasures.log");
        self.erasure_key = files::beside(path, ".key");
        self
    }
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_leaves_nothing_half_done() {
    let (folder, store) = new_store();
    put(&store, "r1", "u1").await;
    let path = folder.path().join("copy.db");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(store.backup(path.clone()).await, Err(BackupError::Exists { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = folder.path().join("no/such/folder/copy.db");
    assert!(matches!(store.backup(nowhere).await, Err(BackupError::File { .. })));
    let missing = backup_database(&folder.path().join("none.db"), &folder.path().join("c"), Duration::ZERO);
    assert!(matches!(missing, Err(BackupError::NoDatabase { .. })));
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("unfinished"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_restore_brings_back_everybody_but_those_who_were_erased_since() {
    let (folder, store) = new_store();
    for number in 0..200 {
        for user in ["stays", "erased-before", "erased-after"] {
            put(&store, &format!("{user}-{number}"), user).await;
        }
    }
    erase(&store, "erased-before").await;
    put(&store, "again", "erased-before").await;
    let backup = folder.path().join("copy.db");
    store.backup(backup.clone()).await.unwrap();
    assert_eq!(erase(&store, "erased-after").await, 200);
    store.close().await;

    let target = tempfile::tempdir().unwrap();
    let options = restore_options(&folder, &backup, &target);
    let restored = restore(&options).unwrap();
    assert_eq!(restored, Restored { predictions: 201, erased_users: 1, erased_predictions: 200 });
    for entry in std::fs::read_dir(target.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path, database(&target), "nothing else is left");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(12).any(|window| window == b"erased-after"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    check_integrity(&database(&target));
    let store = open(&target);
    assert_eq!(ids(&store, "stays").await.len(), 200);
    assert_eq!(ids(&store, "erased-before").await, ["again"], "it came after the erasure");
    store.close().await;

    let again = restore(&options).unwrap_err();
    assert!(matches!(again, RestoreError::Exists { .. }), "{again}");
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_of_another_is_not_restored() {
    let (folder, store) = new_store();
    let many = (0..1_000).map(|n| prediction(&format!("r{n}"), "u1")).collect();
    store.put_many(many).await.unwrap();
    let backup = folder.path().join("copy.db");
    store.backup(backup.clone()).await.unwrap();
    let whole = std::fs::read(&backup).unwrap();
    let target = tempfile::tempdir().unwrap();
    let try_bytes = |bytes: &[u8]| {
        let path = folder.path().join("bad.db");
        std::fs::write(&path, bytes).unwrap();
        let error = restore(&restore_options(&folder, &path, &target)).unwrap_err();
        let left: Vec<_> = std::fs::read_dir(target.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "{error}");
        error
    };
    let mut scribbled = whole.clone();
    scribbled[8192..12288].fill(0x5A);
    for bytes in [&whole[..whole.len() / 2], &scribbled] {
        let error = try_bytes(bytes);
        assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
    }
    for bytes in [&b""[..], b"Dear diary"] {
        let error = try_bytes(bytes);
        assert!(matches!(error, RestoreError::Open(OpenError::NotADatabase { .. })), "{error}");
    }
}
