//! `bench`: its report on this machine, its plots, and what it leaves behind: nothing.

mod support;

use std::fs;
use support::schema;
use support::{Place, run};

#[test]
fn the_report_is_whole_and_the_plots_are_there() {
    let place = Place::new();
    let (dir, plots) = (place.path(""), place.path("plots"));
    let ran = run(&["--json", "bench", "--time", "1s", "--rate", "5000", "--dir", &dir, "--svg", &plots], b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report = ran.json();
    schema::validate("bench", &report);
    for subject in ["bus", "bare"] {
        let found = &report["latency"][subject];
        let at = |name: &str| found[name].as_u64().expect("a number");
        assert!(at("trips") > 0, "{found}");
        let rising = ["p50", "p90", "p99", "p99_9", "p99_99", "max"].map(at);
        assert!(rising.is_sorted() && rising[0] > 0, "{found}");
    }
    let points = report["throughput"].as_array().expect("a list");
    assert!(points.iter().any(|point| point["readers"] == 4) && points.iter().any(|point| point["size"] == 16384));
    for name in ["latency.svg", "throughput-by-size.svg", "throughput-by-readers.svg"] {
        let svg = fs::read_to_string(format!("{plots}/{name}")).expect("a plot");
        assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 2, "{name}:\n{svg}");
        assert!(svg.contains("the bus") && svg.contains("bare lines"), "{name}");
    }
    let left: Vec<_> = fs::read_dir(&dir).expect("the place").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["plots"]);
}

#[test]
fn one_processor_is_enough() {
    let place = Place::new();
    let first = run(&["--json", "bench", "--time", "1s", "--rate", "1000", "--dir", &place.path("")], b"").json()["machine"]["cpus"][0].clone();
    let ran =
        run(&["bench", "--time", "1s", "--rate", "1000", "--dir", &place.path(""), "--cpus", &first.to_string()], b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words = String::from_utf8(ran.stdout).expect("text");
    assert!(
        words.contains("sharing processors") && words.contains("P99.99") && words.contains("bare lines"),
        "{words}"
    );
}

#[test]
fn values_out_of_range_are_usage_errors() {
    for args in [&["--cpus", "99999"][..], &["--time", "1ms"], &["--size", "8"], &["--rate", "0"], &["--cpus", "x"]] {
        assert_eq!(run(&[&["bench"], args].concat(), b"").code, 2, "{args:?}");
    }
    assert_eq!(run(&["bench", "--time", "1s", "--dir", "/nowhere at all"], b"").code, 1);
}
