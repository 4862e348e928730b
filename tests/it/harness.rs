//! How these tests are run: as `cargo test` does everywhere, except that a test is ignored when this machine lacks what
//! it needs. With `LB_TESTS=all` that is a failure. With `LB_TESTS_TRIES=2` a test that fails is run again at once;
//! what it said the first time is shown, and the last line names the tests that passed only then.
//!
//! The tests know nothing of it: `#[test]` is the attribute of `tests/attribute` here, which makes the list.

use std::cell::RefCell;
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::support::missing_packages;

pub struct Test {
    pub path: &'static str,
    pub run: fn(),
}

inventory::collect!(Test);

/// What this machine lacks and a test needs. It unwinds like a panic, without being one.
struct Lack {
    what: String,
    is_program: bool,
}

/// Tests that were ignored for want of a program.
static WITHOUT_PROGRAM: AtomicUsize = AtomicUsize::new(0);

/// Tests that failed and passed when they were run again.
static PASSED_LATER: Mutex<Vec<&str>> = Mutex::new(Vec::new());

thread_local! {
    /// What is shown of the test on this thread if it fails. `None`: there is no test on it.
    static REPORT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    report_panics();
    let mut tests: Vec<&Test> = inventory::iter::<Test>().collect();
    tests.sort_by_key(|test| test.path);
    let trials = tests.into_iter().map(|test| {
        let (_crate, name) = test.path.split_once("::").expect("a path of modules");
        Trial::ignorable_test(name, || run_and_retry(name, test.run))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let ignored = WITHOUT_PROGRAM.load(Ordering::Relaxed);
    if ignored > 0 {
        let packages = Vec::from_iter(missing_packages()).join(" ");
        println!("ignored for want of programs: {ignored}; on Debian: apt-get install {packages}");
    }
    let passed_later = PASSED_LATER.lock().unwrap();
    if !passed_later.is_empty() {
        println!("failed once and passed when run again, for reasons to be found: {}", passed_later.join(" "));
    }
    conclusion.exit_code()
}

/// Ends the test of this thread: it needs a program.
#[track_caller]
pub fn lacks_program(program: &str, package: &str) -> ! {
    end_test(Lack { what: format!("{program}: apt-get install {package}"), is_program: true })
}

/// Ends the test of this thread: it needs something of the machine.
#[track_caller]
pub fn lacks(what: &str) -> ! {
    end_test(Lack { what: what.to_owned(), is_program: false })
}

#[track_caller]
fn end_test(lack: Lack) -> ! {
    let may_lack = std::env::var_os("LB_TESTS").is_none_or(|tests| tests != "all");
    assert!(may_lack, "this test needs {}", lack.what);
    panic::resume_unwind(Box::new(lack))
}

/// Adds to what is shown of the test on this thread if it fails: whether there is one.
pub fn report(text: &str) -> bool {
    REPORT.with_borrow_mut(|report| report.as_mut().map(|report| report.push_str(text)).is_some())
}

/// Panics on a test's own thread are part of its report. Others are shown at once, as usual, and so is every backtrace
/// that was asked for.
fn report_panics() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let is_reported = report(&format!("{panic}\n"));
        if !is_reported || std::env::var_os("RUST_BACKTRACE").is_some() {
            show(panic);
        }
    }));
}

/// The same up to `LB_TESTS_TRIES` times, until it passes.
fn run_and_retry(name: &'static str, test: fn()) -> Result<Completion, Failed> {
    let tries = std::env::var("LB_TESTS_TRIES").map_or(1, |tries| tries.parse().expect("a number in LB_TESTS_TRIES"));
    let mut result = run(test);
    for _ in 1..tries {
        let Err(failed) = &result else { break };
        eprintln!("{name} failed and is run again:\n{}", failed.message().unwrap_or_default());
        result = run(test);
        if result.is_ok() {
            PASSED_LATER.lock().unwrap().push(name);
        }
    }
    result
}

fn run(test: fn()) -> Result<Completion, Failed> {
    REPORT.set(Some(String::new()));
    let end = panic::catch_unwind(test);
    let report = REPORT.take().unwrap_or_default();
    let Err(panic) = end else { return Ok(Completion::Completed) };
    let lack = panic.downcast::<Lack>().map_err(|_| report)?;
    WITHOUT_PROGRAM.fetch_add(usize::from(lack.is_program), Ordering::Relaxed);
    Ok(Completion::ignored_with(format!("needs {}", lack.what)))
}
