//! What was simulated, as tables.

use std::fmt::Write as _;

use crate::simulation::baselines::{Kind, Setting};
use crate::simulation::device::Device;
use crate::simulation::recovery::Recovery;
use crate::simulation::study::{Measured, Row, Summary};
use crate::simulation::traffic::Pattern;

const BEGIN: &str = "<!-- simulation: begin -->";
const END: &str = "<!-- simulation: end -->";

/// Puts the tables between their marks in a page.
pub(crate) fn insert(page: &str, tables: &str) -> String {
    let before = page.find(BEGIN).map_or(page.len(), |at| at + BEGIN.len());
    let after = page.find(END).unwrap_or(page.len());
    format!("{}\n{tables}{}", &page[..before], &page[after..])
}

/// All tables, in Markdown.
pub(crate) fn tables(rows: &[Row], recoveries: &[Recovery]) -> String {
    let mut text = String::new();
    text.push_str("\n### What was to be shown\n\n");
    text.push_str("| | required | simulated |\n|---|---|---|\n");
    for Verdict { what, required, simulated, .. } in verdicts(rows) {
        let _ = writeln!(text, "| {what} | {required} | {simulated} |");
    }
    text.push_str("\n### Each of the others\n\n");
    text.push_str(&others(rows));
    text.push_str("\n### Trouble\n\n");
    text.push_str(&troubles(recoveries));
    text.push_str("\n### Every figure\n");
    for device in Device::ALL {
        for pattern in Pattern::ALL {
            let _ = write!(text, "\n#### Device {}, {}\n\n", device.name(), pattern.name());
            text.push_str(&figures(
                rows.iter().filter(|r| r.cell.device == device && r.cell.pattern == pattern),
            ));
        }
    }
    text
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", share * 100.0)
}

/// What was to be shown, and whether it was.
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) required: &'static str,
    pub(crate) simulated: String,
    pub(crate) holds: bool,
}

/// The contract, line by line.
pub(crate) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let of = |pattern| rows.iter().filter(move |row: &&Row| row.cell.pattern == pattern);
    let least = |ratios: &mut dyn Iterator<Item = f64>| ratios.fold(f64::INFINITY, f64::min);
    let most = |shares: &mut dyn Iterator<Item = f64>| shares.fold(0.0, f64::max);
    let mean = |pattern| of(pattern).map(Row::ratio).sum::<f64>() / of(pattern).count() as f64;
    let at = |load: f64| rows.iter().filter(move |row| row.cell.load == load);
    let peak = |row: &Row| {
        let curve = rows.iter().filter(|other| other.cell.same_curve(&row.cell));
        most(&mut curve.map(|other| other.ours.rate))
    };
    let p50 = |row: &Row| f64::from(row.ours.p50_ms / row.without_delay().p50_ms);
    let late = |noisy: bool| {
        let with = rows.iter().filter(move |row| (row.cell.device == Device::Noisy) == noisy);
        most(&mut with.map(|row| row.ours.late))
    };
    let verdict = |what, required, simulated, holds| Verdict { what, required, simulated, holds };
    let ratio = |what, required, pattern, floor| {
        let (least, mean) = (least(&mut of(pattern).map(Row::ratio)), mean(pattern));
        let simulated = format!("{} at least, {} in the mean", percent(least, 2), percent(mean, 2));
        verdict(what, required, simulated, least >= floor && mean > floor)
    };
    let at_peak = least(&mut at(5.0).map(|row| row.ours.rate / peak(row)));
    let lone = most(&mut at(0.1).map(p50));
    let (steady, noisy) = (late(false), late(true));
    vec![
        ratio(
            "goodput over the best baseline's, Poisson",
            "99 % everywhere, more in the mean",
            Pattern::Poisson,
            0.99,
        ),
        ratio("the same, bursts", "96 % everywhere, more in the mean", Pattern::Bursts, 0.96),
        verdict(
            "goodput at 5 times the capacity, over its own peak",
            "95 %",
            format!("{} at least", percent(at_peak, 2)),
            at_peak >= 0.95,
        ),
        verdict(
            "median latency at 0.1, over that of dispatch without delay",
            "101 %",
            format!("{} at most", percent(lone, 2)),
            lone <= 1.01,
        ),
        verdict(
            "executed and late, devices without noise",
            "none",
            format!("{} at most", percent(steady, 3)),
            steady == 0.0,
        ),
        verdict(
            "executed and late, device with noise",
            "under 0.5 %",
            format!("{} at most", percent(noisy, 3)),
            noisy < 0.005,
        ),
    ]
}

/// What each baseline reached of the server's policy.
fn others(rows: &[Row]) -> String {
    let mut text = "Goodput over that of the server's policy, in the mean of all devices, arrivals, objectives and loads, and at least.\n\n\
        | baseline | as it comes | at least | tuned for each point | at least |\n|---|---|---|---|---|\n"
        .to_owned();
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let mean = |of: fn(&Measured) -> &Summary| {
            rows.iter().map(|row| of(&row.baselines[at]).rate / row.ours.rate).sum::<f64>()
                / rows.len() as f64
        };
        let least = |of: fn(&Measured) -> &Summary| {
            let ratios = rows.iter().map(|row| of(&row.baselines[at]).rate / row.ours.rate);
            ratios.fold(f64::INFINITY, f64::min)
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            kind.name(),
            percent(mean(|measured| &measured.plain), 1),
            percent(least(|measured| &measured.plain), 1),
            percent(mean(|measured| &measured.tuned), 1),
            percent(least(|measured| &measured.tuned), 1)
        );
    }
    text
}

fn troubles(recoveries: &[Recovery]) -> String {
    let mut text = "| device | load | trouble | goodput after it | late after it | late in all |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for recovery in recoveries {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            recovery.device.name(),
            recovery.load,
            recovery.trouble.name(),
            percent(recovery.share, 1),
            percent(recovery.late, 2),
            percent(recovery.late_in_all, 2)
        );
    }
    text
}

fn setting(setting: &Setting) -> String {
    let queue = setting.queue.map_or(String::new(), |queue| format!(", queue {queue}"));
    let expired = if setting.drop_expired { ", drops expired" } else { "" };
    format!("{}{queue}{expired}", setting.kind.name())
}

fn figures<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut text = "| objective | load | goodput | best baseline | its goodput | ratio | p50 | p99 | its p50 | its p99 | batch | late | its late | refused | dropped |\n\
        |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let (ours, best) = (&row.ours, row.best());
        let _ = writeln!(
            text,
            "| {} ms | {} | {:.4} | {} | {:.4} | {:.4} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} | {} | {} |",
            row.cell.objective.as_millis(),
            row.cell.load,
            ours.goodput,
            setting(&best.setting),
            best.tuned.goodput,
            row.ratio(),
            ours.p50_ms,
            ours.p99_ms,
            best.tuned.p50_ms,
            best.tuned.p99_ms,
            ours.batch,
            percent(ours.late, 2),
            percent(best.tuned.late, 2),
            percent(ours.refused, 1),
            percent(ours.dropped, 2)
        );
    }
    text
}
