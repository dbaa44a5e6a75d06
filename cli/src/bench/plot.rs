//! The plots of `bench`, as SVG.

use super::report::{Report, nanoseconds};
use super::{BUS, SHARED_SIZE, SUBJECTS};
use crate::failure::Failure;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::fmt::Display;
use std::path::Path;

const SIZE: (u32, u32) = (860, 480);
const COLOURS: [RGBColor; 2] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0x9a, 0x9a, 0x9a)];
const FONT: &str = "sans-serif";
/// Where the axis of the percentiles is labelled: one in so many is slower.
const ONE_IN: [(f64, &str); 6] = [(1.0, "0"), (2.0, "50"), (10.0, "90"), (100.0, "99"), (1e3, "99.9"), (1e4, "99.99")];

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes all of them.
pub(super) fn write(report: &Report, dir: &Path) -> Result<(), Failure> {
    let by_size = |point: &&super::Point| point.readers == 1;
    let by_readers = |point: &&super::Point| point.size == SHARED_SIZE;
    draw(dir, "latency.svg", |area| latency(report, area))?;
    draw(dir, "throughput-by-size.svg", |area| {
        let points: Vec<_> = report.throughput.iter().filter(by_size).collect();
        let series =
            [0, 1].map(|which| points.iter().map(|p| (p.size as f64, rate(p, which) * p.size as f64 / 1e9)).collect());
        let title = "Throughput to one reader by payload size";
        throughput(report, area, title, "payload in bytes", "GB/s", series)
    })?;
    draw(dir, "throughput-by-readers.svg", |area| {
        let points: Vec<_> = report.throughput.iter().filter(by_readers).collect();
        let series = [0, 1].map(|which| points.iter().map(|p| (p.readers as f64, rate(p, which) / 1e6)).collect());
        let title = format!("Records that each reader gets, payload {SHARED_SIZE} bytes");
        let crowded = points.iter().any(|point| !point.own_processors);
        let axis = if crowded { "readers (some share a processor)" } else { "readers" };
        throughput(report, area, &title, axis, "million records a second", series)
    })
}

fn rate(point: &super::Point, which: usize) -> f64 {
    if which == BUS { point.bus.records } else { point.bare.records }
}

fn draw(dir: &Path, name: &str, plot: impl FnOnce(&Area<'_>) -> Drawn) -> Result<(), Failure> {
    let path = dir.join(name);
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(Box::from).and_then(|()| plot(&area)).and_then(|()| Ok(area.present()?));
    drawn.map_err(|error| Failure::other(format!("{}: cannot draw it: {error}", path.display())))
}

/// A title, and under it what was measured where.
fn titled<'a>(area: &Area<'a>, title: &str, report: &Report) -> Result<Area<'a>, Box<dyn Error>> {
    let below = area.titled(title, (FONT, 22))?;
    Ok(below.titled(&report.headline(), (FONT, 12))?)
}

fn latency(report: &Report, area: &Area<'_>) -> Drawn {
    let trips = report.histograms.iter().map(|histogram| histogram.len()).min().unwrap_or(0).max(10) as f64;
    let slowest = report.histograms.iter().map(|histogram| histogram.max()).max().unwrap_or(1).max(10) as f64;
    let fastest = report.histograms.iter().map(|histogram| histogram.min()).min().unwrap_or(1).max(1) as f64;
    let settings = &report.settings;
    let title = format!("Round trip of {} bytes, {} a second", settings.latency_size, settings.latency_rate);
    let area = titled(area, &title, report)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d((1f64..trips).log_scale(), (fastest / 1.5..slowest * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("time since the intended start")
        .x_label_formatter(&|one_in| {
            ONE_IN
                .iter()
                .find(|(at, _)| (at - one_in).abs() < at / 100.0)
                .map_or(String::new(), |(_, label)| (*label).to_owned())
        })
        .y_label_formatter(&|ns| nanoseconds(*ns as u64))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for ((histogram, name), colour) in report.histograms.iter().zip(SUBJECTS).zip(COLOURS) {
        // Every twentieth of a decade, as far as there is at least one sample beyond.
        let steps = (trips.log10() * 20.0) as u32;
        let line = (0..=steps).map(|step| {
            let one_in = 10f64.powf(f64::from(step) / 20.0);
            (one_in, histogram.value_at_quantile(1.0 - 1.0 / one_in) as f64)
        });
        legend(chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?, name, colour);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn throughput(report: &Report, area: &Area<'_>, title: &str, x: &str, y: &str, series: [Vec<(f64, f64)>; 2]) -> Drawn {
    let area = titled(area, title, report)?;
    let all = || series.iter().flatten();
    let (first, last) = all().fold((f64::MAX, f64::MIN), |(low, high), &(x, _)| (low.min(x), high.max(x)));
    let top = all().fold(0f64, |top, &(_, y)| top.max(y)) * 1.1;
    let ticks: Vec<f64> = series[BUS].iter().map(|&(x, _)| x).collect();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((first / 1.1..last * 1.1).log_scale().base(2.0).with_key_points(ticks), 0f64..top)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|x| label(x.round()))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for ((points, name), colour) in series.iter().zip(SUBJECTS).zip(COLOURS) {
        legend(chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?, name, colour);
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn label(value: impl Display) -> String {
    value.to_string()
}

fn legend<DB: DrawingBackend>(series: &mut plotters::chart::SeriesAnno<'_, DB>, name: &str, colour: RGBColor) {
    series.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
}
