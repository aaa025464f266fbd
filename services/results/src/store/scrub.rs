//! Overwriting what deleted rows have left behind inside of pages.
//!
//! `secure_delete` zeroes a cell as it is deleted. But when SQLite rebalances a b-tree, it copies cells to other pages
//! and leaves the old bytes in what is now the gap between a page's cell pointers and its cells. No query can see them;
//! a look at the file can. A scrub goes over all pages and zeroes the gaps, in steps that are transactions of their own,
//! so that writers wait for a step and never for the whole.
//!
//! Pages that change meanwhile need no second look: a page that becomes free, or is taken from the free ones, is zeroed
//! by SQLite, and what rebalancing copies is live cells, never gaps.
//! Page format: <https://www.sqlite.org/fileformat2.html#b_tree_pages>.

use rusqlite::{Connection, TransactionBehavior};
use std::time::{Duration, Instant};

/// Most time that a step looks at pages; its commit comes on top.
const STEP_TIME: Duration = Duration::from_millis(15);
/// Most pages that a step changes: 1 MiB of pages of 4 KiB to sync.
const STEP_CHANGES: usize = 256;

/// Scrubs from page `first` on, for one step. Returns the page that the next one begins with, or none at the end.
pub(super) fn step(connection: &mut Connection, first: u32) -> rusqlite::Result<Option<u32>> {
    let began = Instant::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next = {
        let pages: u32 = transaction.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let mut read = transaction.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut write = transaction.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
        let reserved = read.query_row([1], |row| Ok(row.get_ref(0)?.as_blob()?[RESERVED_AT]))?;
        let (mut page, mut changed, mut data) = (first, 0, Vec::new());
        while page <= pages && changed < STEP_CHANGES && began.elapsed() < STEP_TIME {
            read.query_row([page], |row| {
                data.clear();
                data.extend_from_slice(row.get_ref(0)?.as_blob()?);
                Ok(())
            })?;
            let usable = data.len() - usize::from(reserved);
            let header = if page == 1 { FILE_HEADER_BYTES } else { 0 };
            if scrub_page(&mut data[..usable], header) {
                write.execute((page, &data))?;
                changed += 1;
            }
            page += 1;
        }
        (page <= pages).then_some(page)
    };
    transaction.commit()?;
    Ok(next)
}

/// Whether this SQLite was built with the table that a scrub needs.
pub(super) fn is_possible(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_module_list WHERE name = 'sqlite_dbpage')";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Before the b-tree header of page 1.
const FILE_HEADER_BYTES: usize = 100;
/// Of page 1: how many bytes at the end of each page are not SQLite's.
const RESERVED_AT: usize = 20;
/// More fragments than this on one page SQLite never leaves.
const MAX_FRAGMENTED: u8 = 60;

/// Zeroes what no cell of a b-tree page uses: the gap between pointers and cells, and the insides of free blocks.
/// `page` is without reserved bytes; its b-tree header begins at `header`. Returns whether a byte was changed; a page of
/// another kind (overflow, free) is left as it is.
fn scrub_page(page: &mut [u8], header: usize) -> bool {
    let Some(unused) = unused(page, header) else { return false };
    let mut changed = false;
    for (start, end) in unused {
        let bytes = &mut page[start..end];
        if bytes.iter().any(|byte| *byte != 0) {
            bytes.fill(0);
            changed = true;
        }
    }
    changed
}

/// The unused ranges of a b-tree page; none if anything about the page is not as a b-tree page has it. The first byte
/// tells the kinds apart in files of less than 2^25 pages: there the other kinds begin with a page number, and so with a
/// smaller byte. In larger files, a page is taken for a b-tree page only if all its pointers agree, too.
fn unused(page: &[u8], header: usize) -> Option<Vec<(usize, usize)>> {
    let u16_at = |at: usize| Some(usize::from(u16::from_be_bytes([*page.get(at)?, *page.get(at + 1)?])));
    let header_bytes = match page.get(header)? {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return None,
    };
    let cells = u16_at(header + 3)?;
    let content = match u16_at(header + 5)? {
        0 => 1 << 16,
        offset => offset,
    };
    let pointers = header + header_bytes;
    let gap = pointers + 2 * cells;
    if gap > content || content > page.len() || *page.get(header + 7)? > MAX_FRAGMENTED {
        return None;
    }
    for cell in 0..cells {
        let offset = u16_at(pointers + 2 * cell)?;
        if offset < content || offset + 4 > page.len() {
            return None;
        }
    }
    let mut ranges = vec![(gap, content)];
    let (mut block, mut least) = (u16_at(header + 1)?, content);
    while block != 0 {
        let size = u16_at(block + 2)?;
        if block < least || size < 4 || block + size > page.len() {
            return None;
        }
        ranges.push((block + 4, block + size));
        least = block + size;
        block = u16_at(block)?;
    }
    Some(ranges)
}

#[cfg(test)]
mod tests;
