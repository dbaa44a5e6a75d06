//! Tests of what `top` draws, among them the picture of the README, which is drawn here and compared: it is never stale.
//!
//! `LAPWING_BLESS=1 cargo test -p lapwing-cli picture` draws it anew.

use super::state::{Action, App, Mode, Row, Seen, Sort};
use super::view;
use crate::report::{Condition, Reader};
use lapwing::ReaderId;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use std::fmt::Write as _;

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/top.svg");

/// Name, class, state, health, lag in percent, records a second, missed, milliseconds idle.
type Sketch = (&'static str, &'static str, &'static str, &'static str, f64, f64, u64, Option<u64>);

fn row(id: u64, (name, class, state, health, lag, rate, missed, idle): Sketch) -> Row {
    let capacity = (4u64 << 20) as f64;
    let reader = Reader {
        id,
        name: (!name.is_empty()).then(|| name.to_owned()),
        pid: 48_100 + id as u32,
        class: class.into(),
        state: state.into(),
        lag_records: (lag * 400.0) as u64,
        lag_bytes: (capacity * lag / 100.0) as u64,
        alive: !matches!(health, "dead" | "detached"),
        evictable: state != "evicted" && class != "pinned",
        delivered: 1_000_000,
        missed,
        pending: (lag * 400.0) as u64,
        start: 0,
        cursor: 1_000_000,
        hold: name == "archive",
        slot: id as u32,
        evictions: u64::from(health == "evicted"),
        waits: 0,
        condition: Some(Condition {
            health: health.into(),
            health_since_ms: 1000,
            lag_percent: lag,
            last_progress_ms: idle,
            stuck_ms: if health == "live" { 0 } else { idle.unwrap_or(0) },
            stopped: health == "stopped",
        }),
    };
    Row { reader, rate: Some(rate) }
}

fn seen() -> Seen {
    let sketches = [
        ("risk", "gating", "active", "live", 0.1, 812_000.0, 0, Some(0)),
        ("pricing", "pinned", "active", "live", 1.4, 812_100.0, 0, Some(0)),
        ("archive", "gating", "detached", "detached", 22.0, 0.0, 0, None),
        ("reporting", "gating", "active", "lagging", 58.0, 805_000.0, 0, Some(0)),
        ("billing", "gating", "active", "stalled", 91.0, 0.0, 0, Some(7_400)),
        ("debugger", "gating", "active", "stopped", 77.0, 0.0, 0, Some(31_000)),
        ("", "gating", "active", "dead", 64.0, 0.0, 0, None),
        ("dashboard", "lossy", "active", "lagging", 100.0, 640_000.0, 182_400, Some(0)),
        ("old-client", "gating", "evicted", "evicted", 100.0, 0.0, 48_112, None),
        ("newcomer", "gating", "joining", "joining", 0.0, 0.0, 0, None),
    ];
    Seen {
        writer: "alive".into(),
        writer_pid: 48_090,
        epoch: 2,
        capacity: 4 << 20,
        sequence: 1_204_331_008,
        rate: Some(812_400.0),
        byte_rate: Some(52.0e6),
        wait_rate: Some(12.0),
        waits: 1_204,
        overruns: 3,
        warnings: 17,
        evictions: 1,
        reaped: 2,
        takeovers: 1,
        slots: 128,
        served: 4,
        rows: Some((1..).zip(sketches).map(|(id, sketch)| row(id, sketch)).collect()),
    }
}

fn app(colour: bool) -> App {
    let mut app = App::new(vec!["/dev/shm/orders".into()], colour);
    app.views[0].seen = Some(seen());
    app
}

fn drawn(app: &App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory is a terminal");
    terminal.draw(|frame| view::draw(frame, app)).expect("memory takes it");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[Cell]| cells.iter().map(Cell::symbol).collect::<String>().trim_end().to_owned();
    buffer.content.chunks(width).map(line).collect()
}

fn press(app: &mut App, code: KeyCode) -> Option<Action> {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn names(app: &App) -> Vec<String> {
    app.rows().iter().map(|row| row.name()).collect()
}

/// The colours of a terminal, on its dark ground.
fn hex(colour: Color) -> &'static str {
    match colour {
        Color::Green => "#7ec77e",
        Color::Yellow => "#e0c060",
        Color::LightRed => "#f0965a",
        Color::Red => "#ef5350",
        Color::Cyan => "#6ec6d6",
        Color::Magenta => "#c792c7",
        _ => "#d8dee4",
    }
}

/// A cell of the picture.
const CELL: (f64, f64) = (8.4, 18.0);
const GROUND: &str = "#14191e";

/// Draws a buffer as a picture: bars as rectangles, and each word at its column, so that no font moves anything.
fn svg(buffer: &Buffer) -> String {
    let (width, height) = (usize::from(buffer.area.width), usize::from(buffer.area.height));
    let (w, h) = (width as f64 * CELL.0 + 16.0, height as f64 * CELL.1 + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.1}\" height=\"{h:.1}\" viewBox=\"0 0 {w:.1} {h:.1}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n<title>lapwing top</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{GROUND}\"/>\n"
    );
    for (y, cells) in buffer.content.chunks(width).enumerate() {
        for (x, run) in cells.chunk_by(|a, b| a.modifier == b.modifier && a.fg == b.fg).scan(0, offsets) {
            draw_run(&mut svg, x, y, run);
        }
    }
    svg + "</svg>\n"
}

/// Pairs each piece with where it starts.
fn offsets<'a>(at: &mut usize, piece: &'a [Cell]) -> Option<(usize, &'a [Cell])> {
    let start = *at;
    *at += piece.len();
    Some((start, piece))
}

fn rectangle(svg: &mut String, ink: &str, (left, top): (f64, f64), (width, height): (f64, f64)) {
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{ink}\"/>"
    );
}

/// Draws cells that look alike.
fn draw_run(svg: &mut String, x: usize, y: usize, cells: &[Cell]) {
    let left = |x: usize| 8.0 + x as f64 * CELL.0;
    let top = 8.0 + y as f64 * CELL.1;
    let modifier = cells[0].modifier;
    let mut ink = hex(cells[0].fg);
    let width = cells.len() as f64 * CELL.0;
    if modifier.contains(Modifier::REVERSED) {
        rectangle(svg, ink, (left(x), top), (width, CELL.1));
        ink = GROUND;
    }
    if modifier.contains(Modifier::UNDERLINED) {
        rectangle(svg, ink, (left(x), top + CELL.1 - 1.0), (width, 1.0));
    }
    for (at, piece) in cells.chunk_by(|a, b| Kind::of(a) == Kind::of(b)).scan(x, offsets) {
        match Kind::of(&piece[0]) {
            Kind::Space => {}
            Kind::Bar => {
                let eighths: usize = piece.iter().map(|cell| eighths(cell).unwrap_or(0)).sum();
                rectangle(svg, ink, (left(at), top + 3.0), (eighths as f64 / 8.0 * CELL.0, CELL.1 - 6.0));
            }
            Kind::Word => {
                let text: String = piece.iter().map(Cell::symbol).collect();
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                let bold = if modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
                let (left, length) = (left(at), piece.len() as f64 * CELL.0);
                let _ = writeln!(
                    svg,
                    "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{ink}\" textLength=\"{length:.1}\"{bold}>{text}</text>",
                    top + 13.5
                );
            }
        }
    }
}

/// What a cell holds.
#[derive(PartialEq)]
enum Kind {
    Space,
    Word,
    Bar,
}

impl Kind {
    fn of(cell: &Cell) -> Self {
        match cell.symbol() {
            " " => Self::Space,
            _ if eighths(cell).is_some() => Self::Bar,
            _ => Self::Word,
        }
    }
}

/// How much of a bar's cell is full.
fn eighths(cell: &Cell) -> Option<usize> {
    ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"].iter().position(|block| *block == cell.symbol()).map(|at| at + 1)
}

#[test]
fn the_picture_of_the_readme_is_what_top_draws() {
    let mut app = app(true);
    app.sort = Sort::Health;
    let now = svg(&drawn(&app, 100, 18));
    if std::env::var_os("LAPWING_BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(PICTURE).parent().expect("a directory")).expect("docs");
        std::fs::write(PICTURE, &now).expect("the picture");
    }
    let kept = std::fs::read_to_string(PICTURE).expect("docs/top.svg is in the repository");
    assert!(kept == now, "docs/top.svg is stale; draw it anew with LAPWING_BLESS=1 cargo test -p lapwing-cli picture");
}

#[test]
fn eighty_by_twenty_four_shows_every_column_whole() {
    let text = lines(&drawn(&app(false), 80, 24));
    assert!(text[0].starts_with("lapwing top  /dev/shm/orders"), "{text:#?}");
    let head: Vec<_> = text[5].split_whitespace().collect();
    assert_eq!(head, ["READER", "PID", "CLASS", "STATE", "HEALTH", "LAG", "REC/S", "MISSED", "IDLE"]);
    let billing = text.iter().find(|line| line.contains("stalled")).expect("a row");
    for word in ["billing", "48105", "gating", "active", "stalled", "91 %", "7.4s"] {
        assert!(billing.contains(word), "no {word} in {billing}");
    }
    let detached = text.iter().find(|line| line.contains("archive")).expect("a row");
    assert!(detached.contains("detached detached"), "{detached}");
    assert!(text[1].contains("alive") && text[1].contains("812k rec/s") && text[1].contains("12/s"), "{text:#?}");
    assert!(text[2].contains("91 % held by billing"), "{text:#?}");
    assert!(text[3].contains("10 registered, 4 served, 128 slots"), "{text:#?}");
    assert!(text[23].contains("q quit") && text[23].contains("e evict"), "{text:#?}");
}

#[test]
fn without_colour_no_cell_has_one() {
    for mode in [Mode::Normal, Mode::Help, Mode::Filter] {
        let mut plain = app(false);
        plain.mode = mode;
        let cells = drawn(&plain, 80, 24).content;
        assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }
    assert!(drawn(&app(true), 80, 24).content.iter().any(|cell| cell.fg == Color::Red));
}

#[test]
fn any_size_is_drawn() {
    let mut many = App::new((0..9).map(|n| format!("/dev/shm/bus-{n}")).collect(), true);
    many.views[1].seen = Some(seen());
    many.views[2].error = Some("/dev/shm/bus-2: no such bus".into());
    for app in [&app(true), &many] {
        for (width, height) in [(1, 1), (2, 40), (10, 3), (40, 10), (79, 23), (300, 80)] {
            drawn(app, width, height);
        }
    }
    for mode in [Mode::Help, Mode::Filter] {
        let mut small = app(true);
        small.mode = mode;
        drawn(&small, 3, 3);
    }
}

#[test]
fn several_buses_are_listed_and_turned_to() {
    let mut app = App::new(vec!["/dev/shm/orders".into(), "/dev/shm/quotes".into(), "/dev/shm/gone".into()], false);
    app.views[0].seen = Some(seen());
    app.views[1].seen = Some(Seen { rows: Some(vec![]), served: 0, ..seen() });
    app.views[2].error = Some("/dev/shm/gone: no such bus".into());
    let text = lines(&drawn(&app, 80, 24));
    assert!(text[1].starts_with("▸ /dev/shm/orders") && text[1].contains("4/10 served"), "{text:#?}");
    assert!(text[2].contains("quotes") && text[2].contains("0/0 served"), "{text:#?}");
    assert!(text[3].contains("no such bus"), "{text:#?}");
    assert_eq!(press(&mut app, KeyCode::Tab), None);
    assert_eq!(names(&app), Vec::<String>::new());
    press(&mut app, KeyCode::BackTab);
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.bus, 2);
}

#[test]
fn keys_sort_filter_and_freeze() {
    let mut app = app(false);
    assert_eq!(names(&app)[..3], ["dashboard", "old-client", "billing"]);
    press(&mut app, KeyCode::Char('s'));
    assert_eq!((app.sort, &names(&app)[0][..]), (Sort::Health, "billing"));
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(names(&app)[9], "billing");
    press(&mut app, KeyCode::Char('/'));
    for c in "STOPx".chars() {
        press(&mut app, KeyCode::Char(c));
    }
    assert!(names(&app).is_empty());
    press(&mut app, KeyCode::Backspace);
    // Letters that are keys otherwise only spell here.
    assert_eq!((names(&app), &app.mode), (vec!["debugger".to_owned()], &Mode::Filter));
    press(&mut app, KeyCode::Enter);
    assert!(lines(&drawn(&app, 80, 24))[0].contains("only \"STOP\""));
    press(&mut app, KeyCode::Esc);
    assert_eq!(names(&app).len(), 10);
    press(&mut app, KeyCode::Char(' '));
    let gone = lapwing::Bus::inspect("/nowhere/at/all").map(|_| unreachable!("nothing is there"));
    app.update(0, gone);
    assert_eq!(app.views[0].error, None);
    assert!(lines(&drawn(&app, 80, 24))[0].contains("FROZEN"));
    press(&mut app, KeyCode::Char(' '));
    app.update(0, lapwing::Bus::inspect("/nowhere/at/all").map(|_| unreachable!("nothing is there")));
    assert!(app.views[0].error.is_some());
    assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Action::Quit));
}

#[test]
fn evicting_takes_a_selected_reader_and_a_clear_yes() {
    let mut app = app(false);
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    assert_eq!(app.selected, Some(5));
    // The selection stays with the reader.
    press(&mut app, KeyCode::Char('s'));
    for answer in [KeyCode::Char('n'), KeyCode::Enter, KeyCode::Esc] {
        assert_eq!(press(&mut app, KeyCode::Char('e')), None);
        let asked = lines(&drawn(&app, 80, 24))[23].clone();
        assert!(asked.starts_with("evict reader 5 billing (process 48105)?"), "{asked}");
        assert_eq!(press(&mut app, answer), None);
        assert_eq!((&app.mode, app.message.as_deref()), (&Mode::Normal, Some("nobody was evicted")));
    }
    press(&mut app, KeyCode::Char('e'));
    let Some(Action::Evict(eviction)) = press(&mut app, KeyCode::Char('y')) else { panic!("a yes evicts") };
    assert_eq!((eviction.bus, eviction.reader), (0, ReaderId(5)));
    for (id, why) in [(2, "pinned"), (9, "already")] {
        app.selected = Some(id);
        press(&mut app, KeyCode::Char('e'));
        assert!(app.mode == Mode::Normal && app.message.as_ref().is_some_and(|words| words.contains(why)));
    }
}

#[test]
fn names_from_a_hostile_table_stay_in_their_cell() {
    let mut app = app(false);
    let rows = app.views[0].seen.as_mut().and_then(|seen| seen.rows.as_mut()).expect("rows");
    rows[0].reader.name = Some("\u{1b}[2J\nevil".into());
    rows[1].reader.name = Some("漢字".repeat(40));
    let text = lines(&drawn(&app, 80, 24));
    assert!(text.iter().all(|line| !line.contains('\u{1b}')), "{text:#?}");
    assert!(text.iter().any(|line| line.contains("\\u{1b}")), "{text:#?}");
}
