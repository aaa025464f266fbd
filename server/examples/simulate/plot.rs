//! Goodput over load, as an SVG that can be read on light and dark pages.

use std::fmt::Write as _;
use std::time::Duration;

use crate::simulation::baselines::Kind;
use crate::simulation::device::Device;
use crate::simulation::study::{LOADS, OBJECTIVES_MS, Row, Summary};
use crate::simulation::traffic::Pattern;

const PANEL: (f64, f64) = (230.0, 150.0);
const GAP: (f64, f64) = (26.0, 52.0);
const MARGIN: (f64, f64) = (46.0, 74.0);

const STYLE: &str = "text{font:11px sans-serif;fill:#333}.title{font-size:12px;font-weight:bold}\
    .grid{stroke:#ddd}.line{fill:none;stroke-width:1.4}.ours{stroke:#c2410c;stroke-width:2.6}\
    .best{stroke:#555;stroke-dasharray:5 3}.fixed{stroke:#2563eb}.aimd{stroke:#059669}.linear{stroke:#9333ea}\
    .nexus{stroke:#ca8a04}\
    @media (prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}.best{stroke:#bbb}}";

/// A curve: its class, its name, and what it shows of a row.
type Curve = (&'static str, &'static str, fn(&Row) -> &Summary);

const CURVES: [Curve; 6] = [
    ("fixed", "fixed delay 0 ms", |row| plain(row, Kind::FixedDelay(Duration::ZERO))),
    ("aimd", "AIMD", |row| plain(row, Kind::Aimd(1.0))),
    ("linear", "linear fit", |row| plain(row, Kind::LinearFit)),
    ("nexus", "early drop", |row| plain(row, Kind::EarlyDrop)),
    ("best", "best of all, tuned for each point", |row| &row.best().tuned),
    ("ours", "Convoy, untuned", |row| &row.ours),
];

/// What a baseline does as it comes.
fn plain(row: &Row, kind: Kind) -> &Summary {
    let at = Kind::ALL.iter().position(|&other| other == kind).expect("every kind is measured");
    &row.baselines[at].plain
}

/// The whole picture: a panel for each device, pattern and objective.
pub(crate) fn svg(rows: &[Row]) -> String {
    let columns: Vec<(Pattern, u64)> = Pattern::ALL
        .into_iter()
        .flat_map(|pattern| OBJECTIVES_MS.map(|objective_ms| (pattern, objective_ms)))
        .collect();
    let width = MARGIN.0 + columns.len() as f64 * (PANEL.0 + GAP.0);
    let height = MARGIN.1 + Device::ALL.len() as f64 * (PANEL.1 + GAP.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>Goodput over load: Convoy's policy and others</title>\n<style>{STYLE}</style>\n"
    );
    let mut x = MARGIN.0;
    for (class, name, _) in CURVES {
        let _ = writeln!(
            svg,
            "<path class=\"line {class}\" d=\"M{x} 18h24\"/><text x=\"{}\" y=\"22\">{name}</text>",
            x + 30.0
        );
        x += 52.0 + 6.0 * name.len() as f64;
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"42\">Answers in time, as a share of what was offered or of the capacity, whichever is less; over the load, as a multiple of the capacity.</text>",
        MARGIN.0
    );
    for (line, device) in Device::ALL.into_iter().enumerate() {
        for (column, &(pattern, objective_ms)) in columns.iter().enumerate() {
            let x = MARGIN.0 + column as f64 * (PANEL.0 + GAP.0);
            let y = MARGIN.1 + line as f64 * (PANEL.1 + GAP.1);
            let objective = Duration::from_millis(objective_ms);
            let curve: Vec<&Row> = rows
                .iter()
                .filter(|row| {
                    (row.cell.device, row.cell.pattern, row.cell.objective) == (device, pattern, objective)
                })
                .collect();
            let title = format!("{} · {} · {objective_ms} ms", device.name(), pattern.name());
            panel(
                &mut svg,
                (x, y),
                &title.replace("1.2 + 0.12 b ms, noise and stalls", "noise and stalls"),
                &curve,
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, (x, y): (f64, f64), title: &str, rows: &[&Row]) {
    let _ = writeln!(svg, "<text class=\"title\" x=\"{x}\" y=\"{}\">{title}</text>", y - 7.0);
    let scale = (LOADS[LOADS.len() - 1] / LOADS[0]).ln();
    let to_x = |load: f64| x + (load / LOADS[0]).ln() / scale * PANEL.0;
    let to_y = |share: f64| y + PANEL.1 * (1.0 - share / 1.1);
    for share in [0.0, 0.5, 1.0] {
        let at = to_y(share);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x} {at:.1}h{}\"/><text text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{share}</text>",
            PANEL.0,
            x - 5.0,
            at + 4.0
        );
    }
    for load in [0.1, 0.5, 1.0, 2.0, 5.0] {
        let at = to_x(load);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {y}v{}\"/><text text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{load}</text>",
            PANEL.1,
            y + PANEL.1 + 14.0
        );
    }
    for (class, _, of) in CURVES {
        let points: Vec<String> = rows
            .iter()
            .map(|row| format!("{:.1} {:.1}", to_x(row.cell.load), to_y(of(row).goodput.clamp(0.0, 1.1))))
            .collect();
        let _ = writeln!(svg, "<path class=\"line {class}\" d=\"M{}\"/>", points.join("L"));
    }
}
