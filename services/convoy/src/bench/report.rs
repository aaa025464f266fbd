//! What was measured, as a table for people and as JSON for programs.

use super::loops::Seen;
use super::raw::{RawSeen, SessionShape};
use super::statistics::median;
use serde::Serialize;
use std::fmt::{self, Write as _};

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) datatype: String,
    pub(super) outputs: String,
    pub(super) server: String,
    pub(super) rounds: usize,
    pub(super) seconds_per_measurement: f64,
    pub(super) objective_ms: f64,
    pub(super) cores: usize,
    pub(super) raw: Vec<RawRow>,
    pub(super) closed: Vec<ServerRow>,
    pub(super) open: Vec<ServerRow>,
}

/// Raw sessions of one shape, round by round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RawRow {
    pub(super) shape: SessionShape,
    pub(super) images_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) rounds: Vec<RawSeen>,
}

/// The server under one load, round by round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServerRow {
    /// `16` callers, or `2x`.
    pub(super) load: String,
    /// Answers within the objective (open loop) or at all (closed loop), as a share of what the best raw shape did in
    /// the same round, in percent.
    pub(super) percent_of_raw: f64,
    pub(super) percent_of_raw_by_round: Vec<f64>,
    pub(super) answered_per_s: f64,
    pub(super) in_time_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Median latency beyond that of the fastest raw call of the same round.
    pub(super) added_ms: f64,
    /// Of what was answered, in percent.
    pub(super) late_percent: f64,
    pub(super) late_at_server_percent: f64,
    /// Of what was offered, in percent.
    pub(super) refused_percent: f64,
    pub(super) expired: usize,
    pub(super) failed: usize,
    pub(super) rounds: Vec<Seen>,
}

/// What the server is compared with in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reference {
    /// Images a second of the best shape.
    pub(super) throughput: f64,
    /// Median of the fastest lone call, in milliseconds.
    pub(super) single_ms: f64,
}

impl RawRow {
    pub(super) fn new(shape: SessionShape, rounds: Vec<RawSeen>) -> Self {
        let of = |value: fn(&RawSeen) -> f64| median(rounds.iter().map(value).collect());
        Self {
            shape,
            images_per_s: of(|seen| seen.images_per_s),
            p50_ms: of(|seen| seen.latency.p50_ms),
            p99_ms: of(|seen| seen.latency.p99_ms),
            rounds,
        }
    }
}

/// What raw sessions of the `shapes` did in one round.
pub(super) fn reference(seen: &[(SessionShape, RawSeen)]) -> Reference {
    let throughput = seen.iter().map(|(_, seen)| seen.images_per_s).fold(0.0, f64::max);
    let lone = seen.iter().filter(|(shape, _)| shape.sessions == 1 && shape.rows == 1);
    Reference {
        throughput,
        single_ms: lone.map(|(_, seen)| seen.latency.p50_ms).fold(f64::INFINITY, f64::min),
    }
}

impl ServerRow {
    /// `rounds` beside the references of the same rounds. `in_time`: only answers within the objective count.
    pub(super) fn new(load: String, rounds: Vec<Seen>, references: &[Reference], in_time: bool) -> Self {
        let of = |value: fn(&Seen) -> f64| median(rounds.iter().map(value).collect());
        let count = |value: fn(&Seen) -> usize| rounds.iter().map(value).sum::<usize>();
        let share = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
        let rate = |seen: &Seen| if in_time { seen.in_time_per_s } else { seen.answered_per_s };
        let beside = || rounds.iter().zip(references);
        let percents: Vec<f64> =
            beside().map(|(seen, reference)| 100.0 * rate(seen) / reference.throughput).collect();
        let added = beside().map(|(seen, reference)| seen.latency.p50_ms - reference.single_ms).collect();
        let answered = count(|seen| seen.answered);
        let (refused, expired, failed) =
            (count(|seen| seen.refused), count(|seen| seen.expired), count(|seen| seen.failed));
        Self {
            load,
            percent_of_raw: median(percents.clone()),
            percent_of_raw_by_round: percents,
            answered_per_s: of(|seen| seen.answered_per_s),
            in_time_per_s: of(|seen| seen.in_time_per_s),
            p50_ms: of(|seen| seen.latency.p50_ms),
            p99_ms: of(|seen| seen.latency.p99_ms),
            added_ms: median(added),
            late_percent: share(count(|seen| seen.late), answered),
            late_at_server_percent: share(count(|seen| seen.late_at_server), answered),
            refused_percent: share(refused, answered + refused + expired + failed),
            expired,
            failed,
            rounds,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "model {} version {}, {} in, {} out; {}; {} cores; {} rounds, {} s each",
            self.model,
            self.version,
            self.datatype,
            self.outputs,
            self.server,
            self.cores,
            self.rounds,
            self.seconds_per_measurement
        )?;
        writeln!(f, "\nraw ONNX Runtime (sessions x threads)   images/s     p50 ms     p99 ms")?;
        for row in &self.raw {
            let RawRow { shape, images_per_s, p50_ms, p99_ms, .. } = row;
            writeln!(f, "{:<37} {images_per_s:>10.1} {p50_ms:>10.2} {p99_ms:>10.2}", shape.to_string())?;
        }
        if !self.closed.is_empty() {
            writeln!(
                f,
                "\nclosed loop   images/s   % of raw (by round)          p50 ms     p99 ms   added ms   refused %"
            )?;
            for row in &self.closed {
                writeln!(
                    f,
                    "{:<11} {:>10.1}   {:>8.1} {:<16} {:>10.2} {:>10.2} {:>10.2} {:>11.2}{}",
                    row.load,
                    row.answered_per_s,
                    row.percent_of_raw,
                    by_round(row),
                    row.p50_ms,
                    row.p99_ms,
                    row.added_ms,
                    row.refused_percent,
                    troubles(row)
                )?;
            }
        }
        if !self.open.is_empty() {
            writeln!(
                f,
                "\nopen loop   in {} ms/s   % of raw (by round)          p50 ms     p99 ms     late %   (server)   refused %",
                self.objective_ms
            )?;
            for row in &self.open {
                writeln!(
                    f,
                    "{:<11} {:>10.1}   {:>8.1} {:<16} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>11.2}{}",
                    row.load,
                    row.in_time_per_s,
                    row.percent_of_raw,
                    by_round(row),
                    row.p50_ms,
                    row.p99_ms,
                    row.late_percent,
                    row.late_at_server_percent,
                    row.refused_percent,
                    troubles(row)
                )?;
            }
        }
        Ok(())
    }
}

fn by_round(row: &ServerRow) -> String {
    let rounds: Vec<String> =
        row.percent_of_raw_by_round.iter().map(|percent| format!("{percent:.0}")).collect();
    format!("({})", rounds.join(" "))
}

/// What should not have happened.
fn troubles(row: &ServerRow) -> String {
    let mut text = String::new();
    for (count, what) in [(row.expired, "expired"), (row.failed, "failed")] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "   {count} {what}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::statistics::Latency;
    use super::*;

    fn raw(sessions: usize, images_per_s: f64, p50_ms: f64) -> (SessionShape, RawSeen) {
        let latency = Latency { p50_ms, ..Latency::default() };
        (SessionShape { sessions, threads: 1, rows: 1 }, RawSeen { images_per_s, latency })
    }

    fn seen(answered: usize, late: usize, refused: usize, p50_ms: f64) -> Seen {
        Seen {
            answered_per_s: answered as f64,
            in_time_per_s: (answered - late) as f64,
            answered,
            late,
            refused,
            latency: Latency { p50_ms, ..Latency::default() },
            ..Seen::default()
        }
    }

    #[test]
    fn the_reference_is_the_best_throughput_and_the_fastest_lone_call() {
        let reference = reference(&[raw(1, 117.0, 8.5), raw(2, 131.0, 15.0)]);
        assert_eq!(reference, Reference { throughput: 131.0, single_ms: 8.5 });
    }

    #[test]
    fn rounds_are_compared_with_their_own_references() {
        let references = [
            Reference { throughput: 100.0, single_ms: 8.0 },
            Reference { throughput: 50.0, single_ms: 16.0 },
        ];
        let rounds = vec![seen(90, 0, 10, 9.0), seen(45, 5, 5, 17.0)];
        let closed = ServerRow::new("16".to_owned(), rounds.clone(), &references, false);
        assert_eq!(closed.percent_of_raw_by_round, [90.0, 90.0]);
        assert_eq!((closed.percent_of_raw, closed.added_ms), (90.0, 1.0));
        assert_eq!(closed.refused_percent, 10.0);
        let open = ServerRow::new("2x".to_owned(), rounds, &references, true);
        assert_eq!(open.percent_of_raw_by_round, [90.0, 80.0]);
        assert_eq!(open.percent_of_raw, 85.0);
        assert_eq!(open.late_percent, 100.0 * 5.0 / 135.0);
    }
}
