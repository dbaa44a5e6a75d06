//! Header and library say the same: prototypes, constants, structs, versions; and no panic passes any export.

use crate::status::planted::PLANTED;
use crate::{bus_calls::*, process::*, reader::*, status::*, types, writer::*};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr::null_mut;

const HEADER: &str = include_str!("../../include/lapwing.h");
const SOURCES: [&str; 5] = [
    include_str!("status.rs"),
    include_str!("process.rs"),
    include_str!("writer.rs"),
    include_str!("reader.rs"),
    include_str!("bus_calls.rs"),
];

/// The header without comments and preprocessor lines.
fn code() -> String {
    let mut code = String::new();
    let mut rest = HEADER;
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    code += rest;
    let keep = |line: &&str| !line.starts_with('#') && !line.starts_with("extern \"C\"") && *line != "}";
    code.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// One space between words, none around stars, commas and parentheses.
fn squeeze(text: &str) -> String {
    let mut out = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for mark in ["*", ",", "(", ")", "[", "]"] {
        out = out.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    out
}

/// Types of the interface: in Rust, in C.
const TYPES: [(&str, &str); 9] = [
    ("c_int", "int"),
    ("c_char", "char"),
    ("c_void", "void"),
    ("u8", "uint8_t"),
    ("u32", "uint32_t"),
    ("u64", "uint64_t"),
    ("i64", "int64_t"),
    ("usize", "size_t"),
    ("lapwing_gap", "lapwing_gap"),
];

/// A C type of a Rust one: `*const *mut T` becomes `T**`, a `*const` `const T*`.
fn c_type(rust: &str) -> String {
    if let Some(inner) = rust.strip_prefix("*mut ") {
        return format!("{}*", c_type(inner));
    }
    if let Some(inner) = rust.strip_prefix("*const ") {
        return format!("const {}*", c_type(inner));
    }
    let known = TYPES.iter().find(|(name, _)| *name == rust);
    known.map_or_else(|| rust.to_string(), |(_, c)| (*c).to_string())
}

/// What the library exports: name to the prototype as it should stand in the header.
fn exported() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for source in SOURCES {
        for part in source.split("#[unsafe(no_mangle)]\n").skip(1) {
            let (_, part) = part.split_once(" fn ").expect("an export is a function");
            let (name, part) = part.split_once('(').expect("it has parameters");
            let (parameters, part) = part.split_once(')').expect("they end");
            let result = part.split_once("->").and_then(|(_, part)| part.split_once('{')).expect("it returns").0;
            let parameters: Vec<_> = parameters
                .split(',')
                .filter_map(|parameter| parameter.split_once(':'))
                .map(|(name, kind)| squeeze(&format!("{} {}", c_type(kind.trim()), name.trim())))
                .collect();
            let list = if parameters.is_empty() { "void".into() } else { parameters.join(",") };
            found.insert(name.to_string(), squeeze(&format!("{} {name}({list});", c_type(result.trim()))));
        }
    }
    found
}

/// Prototypes of the header by name.
fn declared() -> BTreeMap<String, String> {
    let code = code();
    let mut found = BTreeMap::new();
    let mut depth = 0i32;
    for statement in code.split_inclusive(';') {
        let at_top = depth == 0;
        depth += statement.matches('{').count() as i32 - statement.matches('}').count() as i32;
        if at_top && depth == 0 && statement.contains('(') {
            let text = squeeze(statement);
            let name = text.split('(').next().and_then(|head| head.rsplit([' ', '*']).next()).expect("a name");
            found.insert(name.to_string(), text.clone());
        }
    }
    found
}

#[test]
fn the_header_declares_what_the_library_exports() {
    let (declared, exported) = (declared(), exported());
    assert!(exported.len() > 30, "the sources were read");
    assert_eq!(declared, exported);
    assert!(exported.len() <= 40, "the interface stays small: {} functions", exported.len());
    for name in exported.keys() {
        let before = HEADER.rsplit_once(&format!("{name}(")).expect("declared").0;
        let between = before.rsplit_once("*/").expect("text").1;
        assert_eq!(between.lines().count(), 2, "{name} stands right below its comment");
    }
}

#[test]
fn the_version_script_lists_the_exports() {
    let script = include_str!("../lapwing.map");
    let names =
        script.lines().filter_map(|line| line.trim().strip_suffix(';')).filter(|name| name.starts_with("lapwing_"));
    let mut listed: Vec<_> = names.map(str::to_string).collect();
    listed.sort_unstable();
    assert_eq!(listed, exported().into_keys().collect::<Vec<_>>(), "ffi/lapwing.map");
}

/// The test of misuse leaves no function of the header out: those with a handle or pointers stand in its table, and are called there.
#[test]
fn the_table_of_misuse_names_every_function() {
    let source = include_str!("../tests/c/misuse.c");
    let body_of = |start: &str| -> &str {
        let (_, rest) = source.split_once(start).unwrap_or_else(|| panic!("{start} is defined"));
        rest.split_once("\n}\n").map_or(rest, |(body, _)| body).split("DEFINE(").next().expect("a body")
    };
    let mut misused = std::collections::BTreeSet::new();
    for row in source.split("    {CALL(").skip(1) {
        let row = row.split(',').next().expect("a name");
        let body = body_of(&format!("DEFINE({row}) {{"));
        // A row is about the function that it is named after; others with a longer name vary its arguments.
        let called = exported().into_keys().filter(|name| body.contains(&format!("{name}(")));
        let meant = called.max_by_key(|name| format!("lapwing_{row}").starts_with(name.as_str()));
        let meant = meant.unwrap_or_else(|| panic!("{row} calls no function"));
        assert!(format!("lapwing_{row}").starts_with(&meant), "{row} calls {meant}");
        misused.insert(meant);
    }
    // Those that free a handle take its address, and are not for a table that goes on with it.
    let closing = body_of("static void closing(void) {");
    for name in ["lapwing_writer_close", "lapwing_writer_abandon", "lapwing_reader_close"] {
        for status in ["LAPWING_E_NULL", "LAPWING_E_HANDLE"] {
            let is_checked =
                |line: &str| line.contains(&format!("CHECK_STATUS({name}(")) && line.ends_with(&format!("{status});"));
            assert!(closing.lines().any(is_checked), "{name}: {status}");
        }
        misused.insert(name.into());
    }
    // No pointer, no handle, and any number is fine.
    misused.extend(
        ["lapwing_guard_install", "lapwing_last_error", "lapwing_status_name", "lapwing_version"].map(String::from),
    );
    assert_eq!(misused, exported().into_keys().collect());
}

/// Enumerators of the header, and macros that are numbers.
fn constants() -> BTreeMap<String, i64> {
    let code = code();
    let mut found = BTreeMap::new();
    for body in code.split("enum {").skip(1) {
        for entry in body.split('}').next().expect("it ends").split(',') {
            let (name, value) = entry.split_once('=').expect("every constant has a value of its own");
            let before = found.insert(name.trim().to_string(), value.trim().parse().expect("a number"));
            assert_eq!(before, None, "{name} stands once");
        }
    }
    found
}

#[test]
fn the_header_names_the_librarys_numbers() {
    let mut ours: BTreeMap<_, _> = STATUSES.iter().map(|&(name, value)| (name.to_string(), i64::from(value))).collect();
    ours.extend(types::CONSTANTS.iter().map(|&(name, value)| (name.to_string(), i64::from(value))));
    assert_eq!(constants(), ours);
    let mut numbers: Vec<_> = STATUSES.iter().map(|&(_, value)| value).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), STATUSES.len(), "no number means two things");
    for &(name, value) in STATUSES {
        // SAFETY: names are static strings.
        assert_eq!(unsafe { CStr::from_ptr(lapwing_status_name(value)) }.to_str(), Ok(name));
    }
}

#[test]
fn the_header_lays_structs_out_as_the_library_does() {
    let code = code();
    let mut declared = BTreeMap::new();
    for part in code.split("typedef struct ").skip(1) {
        let Some((name, body)) = part.split_once(" {") else { continue };
        if name.contains(';') {
            continue;
        }
        let body = body.split('}').next().expect("it ends");
        let fields: Vec<_> = body.split(';').map(squeeze).filter(|field| !field.is_empty()).collect();
        declared.insert(name.to_string(), fields);
    }
    let mut ours = BTreeMap::new();
    for (name, size, fields) in types::all() {
        let mut end = 0;
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(field, kind, at)| {
                assert!(at >= end, "{name}.{field} comes in the order of the header");
                end = at + 1;
                match kind
                    .strip_prefix('[')
                    .and_then(|kind| kind.strip_suffix(']'))
                    .and_then(|kind| kind.split_once("; "))
                {
                    Some((kind, length)) => squeeze(&format!("{} {field}[{length}]", c_type(kind))),
                    None => squeeze(&format!("{} {field}", c_type(kind))),
                }
            })
            .collect();
        assert!(size.is_multiple_of(8), "{name} has no padding at its end");
        ours.insert(name.to_string(), fields);
    }
    assert_eq!(declared, ours);
}

#[test]
fn there_is_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let define = |name: &str| {
        let line = HEADER.lines().find(|line| line.starts_with(&format!("#define {name} "))).expect("it is defined");
        line.rsplit(' ').next().expect("a value").trim_matches('"').to_string()
    };
    // SAFETY: a static string.
    assert_eq!(unsafe { CStr::from_ptr(lapwing_version()) }.to_str(), Ok(version));
    assert_eq!(define("LAPWING_VERSION"), version);
    let number = version.split('.').fold(0, |number, part| number << 8 | part.parse::<u32>().expect("a number"));
    assert_eq!(define("LAPWING_VERSION_NUMBER"), format!("{number:#08x}"));
    let lines = |text: &str, start: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with(start)).map(str::to_string).collect()
    };
    // Said in the workspace's manifest, taken over by its members, and said once more to pip, which knows nothing of cargo.
    let root = include_str!("../../Cargo.toml");
    let said = vec![format!("version = \"{version}\"")];
    assert_eq!(lines(root, "version = "), said);
    assert_eq!(lines(include_str!("../../python/pyproject.toml"), "version = "), said);
    for manifest in [root, include_str!("../Cargo.toml"), include_str!("../../cli/Cargo.toml")] {
        assert_eq!(lines(manifest, "version.workspace"), ["version.workspace = true"]);
    }
    // The latest entry of the changelog, released or not.
    let changes = lines(include_str!("../../CHANGELOG.md"), "## ");
    assert_eq!(changes[0].split(' ').nth(1), Some(version), "CHANGELOG.md");
    // Filled in by `ffi/install` from the same manifest.
    for (template, line) in [
        (include_str!("../packaging/lapwing.pc.in"), "Version: @version@"),
        (include_str!("../packaging/lapwing-config-version.cmake.in"), "set(PACKAGE_VERSION \"@version@\")"),
        (
            include_str!("../packaging/lapwing-config.cmake.in"),
            "    IMPORTED_LOCATION \"${_lapwing_lib}/liblapwing.so.@version@\"",
        ),
    ] {
        assert!(template.lines().any(|found| found == line), "{line}");
        assert!(!template.contains(version), "a version written out beside {line}");
    }
}

/// Every export, called with nothing: what each returns.
fn call_all() -> Vec<(&'static str, i32)> {
    macro_rules! calls {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {
            // SAFETY: nulls are allowed everywhere: they are statuses.
            vec![$((stringify!($name), unsafe { $name($($argument),*) })),*]
        };
    }
    let mut found = calls![
        lapwing_bus_inspect(null_mut(), null_mut(), null_mut(), 0, null_mut()),
        lapwing_bus_evict(null_mut(), 0),
        lapwing_bus_reap(null_mut(), null_mut(), 0, null_mut()),
        lapwing_bus_forget(null_mut(), null_mut()),
        lapwing_bus_remove(null_mut()),
        lapwing_writer_create(null_mut(), null_mut(), null_mut()),
        lapwing_writer_open(null_mut(), null_mut()),
        lapwing_writer_standby(null_mut(), null_mut()),
        lapwing_writer_close(null_mut(), 0, null_mut()),
        lapwing_writer_abandon(null_mut()),
        lapwing_writer_publish(null_mut(), 0, null_mut(), 0, null_mut()),
        lapwing_writer_try_publish(null_mut(), 0, null_mut(), 0, null_mut()),
        lapwing_writer_publish_vectored(null_mut(), 0, null_mut(), 0, null_mut()),
        lapwing_writer_publish_batch(null_mut(), null_mut(), 0, null_mut()),
        lapwing_writer_claim(null_mut(), 0, 0, null_mut()),
        lapwing_writer_commit(null_mut(), 0, null_mut()),
        lapwing_writer_abort(null_mut()),
        lapwing_writer_set_policy(null_mut(), 0, 0),
        lapwing_writer_get_overrun(null_mut(), null_mut(), null_mut(), 0, null_mut()),
        lapwing_writer_take_event(null_mut(), null_mut(), null_mut()),
        lapwing_writer_list_readers(null_mut(), null_mut(), 0, null_mut()),
        lapwing_writer_evict(null_mut(), 0),
        lapwing_writer_reap(null_mut(), null_mut(), 0, null_mut()),
        lapwing_writer_wait_for_readers(null_mut(), 0),
        lapwing_writer_describe(null_mut(), null_mut()),
        lapwing_reader_open(null_mut(), null_mut(), null_mut()),
        lapwing_reader_close(null_mut()),
        lapwing_reader_next(null_mut(), 0, null_mut()),
        lapwing_reader_poll(null_mut(), 0, null_mut(), 0, null_mut(), 0, null_mut()),
        lapwing_reader_commit(null_mut()),
        lapwing_reader_rejoin(null_mut(), 0, 0, null_mut()),
        lapwing_reader_get_gap(null_mut(), null_mut()),
        lapwing_reader_get_closed(null_mut(), null_mut()),
        lapwing_reader_describe(null_mut(), null_mut()),
        lapwing_reader_get_position(null_mut(), null_mut()),
        lapwing_reader_get_fd(null_mut(), null_mut()),
    ];
    found.push(("lapwing_guard_install", lapwing_guard_install()));
    found
}

#[test]
fn no_panic_passes_any_export() {
    let calm = call_all();
    let mut names: Vec<_> = calm.iter().map(|&(name, _)| name).collect();
    names.extend(["lapwing_last_error", "lapwing_status_name", "lapwing_version"]);
    names.sort_unstable();
    assert_eq!(names, exported().into_keys().collect::<Vec<_>>(), "every export is called here");
    for (name, status) in calm {
        // Which takes no pointer.
        let expected = if name == "lapwing_guard_install" { LAPWING_OK } else { LAPWING_E_NULL };
        assert_eq!(status, expected, "{name}");
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    PLANTED.set(true);
    let planted = call_all();
    PLANTED.set(false);
    std::panic::set_hook(hook);
    for (name, status) in planted {
        assert_eq!(status, LAPWING_E_PANIC, "{name}");
    }
    // SAFETY: the thread's own text.
    let text = unsafe { CStr::from_ptr(lapwing_last_error()) }.to_str().expect("UTF-8");
    assert!(text.contains("planted"), "{text}");
}

#[test]
fn a_panic_inside_a_call_poisons_its_handle() {
    struct Thing;
    impl crate::handle::Kind for Thing {
        const MAGIC: u32 = 0x6967;
        const NAME: &'static str = "thing";
    }
    type Handle = crate::handle::Handle<Thing>;
    let mut handle: *mut Handle = null_mut();
    // SAFETY: the handle is made here, used by this thread, and taken once.
    unsafe {
        assert_eq!(Handle::give(Thing, &raw mut handle), Ok(LAPWING_OK));
        assert_eq!(Handle::with(handle, |_| Ok(LAPWING_EMPTY)), LAPWING_EMPTY);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        assert_eq!(Handle::with(handle, |_| panic!("broken {}", "glass")), LAPWING_E_PANIC);
        std::panic::set_hook(hook);
        let text = CStr::from_ptr(lapwing_last_error()).to_str().expect("UTF-8");
        assert!(text.contains("broken glass"), "{text}");
        assert_eq!(Handle::with(handle, |_| Ok(LAPWING_OK)), LAPWING_E_PANIC, "it can only be closed");
        assert_eq!(Handle::take(&raw mut handle, |_| Ok(LAPWING_OK), |_| Ok(LAPWING_OK)), LAPWING_OK);
    }
    assert!(handle.is_null());
}

#[test]
fn a_long_error_is_cut_at_a_whole_character() {
    fail(LAPWING_E_OTHER, "\u{2014}".repeat(1000));
    // SAFETY: the thread's own text.
    let text = unsafe { CStr::from_ptr(lapwing_last_error()) }.to_str().expect("UTF-8");
    assert_eq!(text.len(), 1023 / 3 * 3);
}
