//! The results as plots: latency and throughput over the size, throughput over the number of readers.

use crate::job::Measure;
use crate::peer::Kind;
use crate::results::{Group, Results, Row};
use crate::table;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// One line: a point for each group, with its spread.
struct Line {
    who: String,
    kind: Kind,
    points: Vec<Point>,
}

#[derive(Clone, Copy)]
struct Point {
    x: f64,
    median: f64,
    min: f64,
    max: f64,
}

/// Pixels on the right that the legend takes.
const LEGEND: u32 = 150;

struct Axes<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

/// Writes the plots into `directory`.
pub fn write(results: &Results, directory: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let of = |measure: Measure, readers: Option<usize>| {
        let groups = results.groups.iter().filter(move |group| {
            group.rows.first().is_some_and(|row| {
                row.job.measure == measure && readers.is_none_or(|readers| row.job.readers == readers)
            })
        });
        groups.collect::<Vec<_>>()
    };
    let by_size = |row: &Row| row.job.size as f64;
    let latency = of(Measure::Latency, None);
    for (figure, file) in [("p50", "latency.svg"), ("p99", "latency-p99.svg")] {
        let axes =
            Axes { title: &format!("One-way latency between processes, {figure}"), x: "bytes a record", y: "ns" };
        draw(&directory.join(file), &axes, &lines(&latency, figure, 1.0, by_size))?;
    }
    let one = of(Measure::Throughput, Some(1));
    let axes =
        Axes { title: "Delivered to one reader (everything, checked)", x: "bytes a record", y: "M records a second" };
    draw(&directory.join("throughput.svg"), &axes, &lines(&one, "rate", 1e6, by_size))?;
    let mut many = of(Measure::Throughput, None);
    many.retain(|group| group.rows[0].job.size == 64);
    let axes = Axes { title: "Delivered to all readers, 64 bytes", x: "readers", y: "M records a second" };
    draw(&directory.join("readers.svg"), &axes, &lines(&many, "rate", 1e6, |row| row.job.readers as f64))
}

/// Collects a figure over the groups, of the limit's program for each group and of everybody who delivers everything across processes: of
/// each family the fastest variant.
fn lines(groups: &[&Group], figure: &str, scale: f64, x: impl Fn(&Row) -> f64) -> Vec<Line> {
    let mut lines: BTreeMap<(Kind, &str), BTreeMap<u64, Point>> = BTreeMap::new();
    for group in groups {
        let limit = table::reference(group).map(|row| row.who.as_str());
        for row in group.rows.iter().filter(|row| row.lossless && row.kind != Kind::InProcess) {
            let Some(spread) = row.spread(figure) else { continue };
            if row.kind == Kind::Limit && Some(row.who.as_str()) != limit {
                continue;
            }
            let point =
                Point { x: x(row), median: spread.median / scale, min: spread.min / scale, max: spread.max / scale };
            let best = lines.entry((row.kind, family(row))).or_default().entry(point.x as u64).or_insert(point);
            if (point.median > best.median) == table::more_is_better(row.job.measure) {
                *best = point;
            }
        }
    }
    let line = |((kind, who), points): ((Kind, &str), BTreeMap<u64, Point>)| Line {
        who: who.to_string(),
        kind,
        points: points.into_values().collect(),
    };
    lines.into_iter().map(line).collect()
}

/// Returns the name that variants share.
fn family(row: &Row) -> &str {
    match row.kind {
        Kind::Limit => "limit",
        Kind::Lapwing => "lapwing",
        _ => ["-packed", "-batch", "-claim"].iter().fold(row.who.as_str(), |who, end| who.trim_end_matches(end)),
    }
}

/// The limit is black, lapwing red, everybody else of a colour that most eyes can tell from the others'.
fn colour(kind: Kind, index: usize) -> RGBColor {
    const OTHERS: [RGBColor; 8] = [
        RGBColor(0, 114, 178),
        RGBColor(230, 159, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(86, 180, 233),
        RGBColor(140, 86, 75),
        RGBColor(128, 128, 0),
        RGBColor(130, 130, 130),
    ];
    match kind {
        Kind::Limit => BLACK,
        Kind::Lapwing => RGBColor(220, 20, 20),
        _ => OTHERS[index % OTHERS.len()],
    }
}

fn draw(path: &Path, axes: &Axes, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let range = |value: fn(&Point) -> f64| {
        let (low, high) = points().map(value).fold((f64::MAX, 0.0_f64), |(low, high), at| (low.min(at), high.max(at)));
        (low, high)
    };
    let ((left, right), (low, high)) = (range(|point| point.x), range(|point| point.median));
    // A line wants two points.
    if left >= right || low <= 0.0 {
        return Ok(());
    }
    let root = SVGBackend::new(path, (1100, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    chart(&root, axes, lines, (left / 1.15, right * 1.15), (low / 1.3, high * 1.3))?;
    root.present()?;
    Ok(())
}

fn chart(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    axes: &Axes,
    lines: &[Line],
    x: (f64, f64),
    y: (f64, f64),
) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(root)
        .caption(axes.title, ("sans-serif", 22))
        .margin(12)
        .margin_right(LEGEND)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .light_line_style(WHITE)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value}"))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let first = lines.iter().position(|other| other.kind == line.kind).unwrap_or(0);
        let colour = colour(line.kind, index - first);
        let style = colour.stroke_width(if line.kind == Kind::Lapwing { 3 } else { 1 });
        chart.draw_series(LineSeries::new(line.points.iter().map(|point| (point.x, point.median)), style))?;
        chart.draw_series(
            line.points.iter().map(|point| {
                PathElement::new(vec![(point.x, point.min), (point.x, point.max)], colour.stroke_width(1))
            }),
        )?;
        chart.draw_series(line.points.iter().map(|point| Circle::new((point.x, point.median), 3, colour.filled())))?;
        // The legend, on the right margin.
        let (left, height) = (root.dim_in_pixel().0 as i32 - LEGEND as i32 + 14, 60 + 22 * index as i32);
        root.draw(&PathElement::new(vec![(left, height), (left + 24, height)], style))?;
        root.draw(&Text::new(line.who.as_str(), (left + 32, height - 7), ("sans-serif", 14)))?;
    }
    Ok(())
}
