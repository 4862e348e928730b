//! The status page adds, changes and removes backends.

use serde_json::json;

use crate::support::{Browser, Lb, connect, greeter, short_read, wait_until, wait_until_equal};

#[track_caller]
fn open(lb: &Lb) -> Browser {
    let browser = Browser::open(&format!("http://{}/", lb.admin()), 1280, 800);
    wait_until("the page shows something", || browser.count("main:not([hidden])") == 1);
    browser
}

/// Types into a field, in place of what it has.
fn enter(browser: &Browser, field: &str, value: &str) {
    browser.value(&format!("void (document.querySelector('{field}').value = {})", json!(value)));
}

#[test]
fn backends_are_added_changed_and_removed_on_the_page() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address()]).start();
    let browser = open(&lb);
    let (one, added) = (a.address().to_string(), b.address().to_string());
    browser.click("#pools button.add");
    wait_until("the dialog", || browser.count("#member[open]") == 1);
    enter(&browser, "#member-address", &added);
    enter(&browser, "#member-weight", "3");
    browser.click("#save-member");
    wait_until_equal("backends", &vec![one.clone(), added.clone()], || lb.backends());
    assert_eq!(lb.backend(b.address())["weight"], 3);
    wait_until("the page shows it", || browser.count(&format!("[data-backend=\"{added}\"]")) == 1);
    wait_until("it says what was done", || browser.text("#result").contains("a restart forgets it"));

    let of_added = format!("[data-backend=\"{added}\"] button.member");
    browser.click(&of_added);
    assert_eq!(browser.value("document.querySelector('#member-weight').value"), "3");
    enter(&browser, "#member-weight", "7");
    enter(&browser, "#member-rank", "2");
    enter(&browser, "#member-limit", "9");
    browser.click("#save-member");
    let limits = || {
        let backend = lb.backend(b.address());
        [&backend["weight"], &backend["rank"], &backend["max_connections"]].map(Clone::clone)
    };
    wait_until_equal("what was entered", &[json!(7), json!(2), json!(9)], limits);

    // Clients would lose: it is asked, and says what becomes of them.
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    wait_until("it has one", || lb.backend(a.address())["active"] == 1);
    wait_until("the page shows it", || browser.text(&format!("[data-backend=\"{one}\"] .active")) == "1");
    browser.click(&format!("[data-backend=\"{one}\"] button.member"));
    browser.click("#remove-member");
    wait_until("it is asked", || browser.text("#question").contains("once its 1 connections have ended"));
    browser.click("#cancel");
    assert_eq!(lb.state_of(a.address()), "up");
    browser.click(&format!("[data-backend=\"{one}\"] button.member"));
    browser.click("#remove-member");
    browser.click("#proceed");
    wait_until_equal("its state", &"draining".to_owned(), || lb.state_of(a.address()));
    drop(live);
    wait_until_equal("backends", &vec![added.clone()], || lb.backends());
    wait_until("the page shows it", || browser.count(&format!("[data-backend=\"{one}\"]")) == 0);

    browser.click(&of_added);
    browser.click("#remove-member");
    browser.click("#proceed");
    wait_until("it is refused", || browser.text("#result").contains("add another one first"));
    // What is refused is shown by the browser itself.
    let console = browser.console();
    assert!(console.iter().all(|line| line.contains("409")), "{console:?}");
}
