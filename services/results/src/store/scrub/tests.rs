#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

/// A leaf of a table with 16 bytes of pointers and header, a gap, a cell, a free block and a cell.
fn leaf() -> Vec<u8> {
    let mut page = vec![0xAA; 64];
    // Leaf, first free block at 44, two cells, content from 36, no fragments; the cells' pointers.
    page[..12].copy_from_slice(&[13, 0, 44, 0, 2, 0, 36, 0, 0, 36, 0, 56]);
    // The last free block, 12 bytes long.
    page[44..48].copy_from_slice(&[0, 0, 0, 12]);
    page
}

#[test]
fn the_gap_and_free_blocks_are_zeroed_and_cells_are_not() {
    let mut page = leaf();
    assert!(scrub_page(&mut page, 0));
    assert_eq!(page[..12], leaf()[..12]);
    assert_eq!(page[12..36], [0; 24]);
    assert_eq!(page[36..44], [0xAA; 8]);
    assert_eq!(page[44..48], [0, 0, 0, 12]);
    assert_eq!(page[48..56], [0; 8]);
    assert_eq!(page[56..], [0xAA; 8]);
    assert!(!scrub_page(&mut page, 0), "nothing is left to do");
}

#[test]
fn a_page_that_is_no_b_tree_page_is_left_alone() {
    for (at, byte) in [(0, 0), (0, 1), (4, 40), (5, 9), (7, 61), (9, 9), (11, 62), (2, 35), (47, 3), (47, 99)]
    {
        let mut page = leaf();
        page[at] = byte;
        let before = page.clone();
        assert!(!scrub_page(&mut page, 0), "byte {at} as {byte}");
        assert_eq!(page, before);
    }
}

#[test]
fn this_sqlite_can_scrub() {
    assert!(is_possible(&Connection::open_in_memory().unwrap()).unwrap());
}

proptest! {
    #[test]
    fn no_bytes_make_it_fail(mut page in prop::collection::vec(any::<u8>(), 0..600), kind in 0..14_u8, page_1: bool) {
        let header = if page_1 { FILE_HEADER_BYTES } else { 0 };
        if let Some(byte) = page.get_mut(header) {
            *byte = kind;
        }
        let before = page.clone();
        let changed = scrub_page(&mut page, header);
        prop_assert_eq!(changed, page != before);
    }
}

/// After a scrub the database is whole, whatever was done before it.
#[test]
fn a_scrub_keeps_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(folder.path().join("t.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON;
             CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
             INSERT INTO t SELECT i, 'name-' || (i * 7919 % 4001), hex(randomblob(i % 3000)) FROM n;
             DELETE FROM t WHERE id % 3 = 0;",
        )
        .unwrap();
    let sum = |connection: &Connection| -> (i64, i64, i64) {
        let sql = "SELECT COUNT(*), SUM(id * length(name)), SUM(length(body)) FROM t";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let before = sum(&connection);
    let mut next = Some(1);
    let mut steps = 0;
    while let Some(page) = next {
        next = step(&mut connection, page).unwrap();
        steps += 1;
    }
    assert!(steps > 1, "one step was enough: the test shows nothing of steps");
    assert_eq!(sum(&connection), before);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.execute("INSERT INTO t (name, body) VALUES ('after', '')", []).unwrap();
}
