//! The pool's dashboard in a real browser, with a real node, pool and miner behind it.
//!
//! `IOP_PICTURES=DIR` keeps pictures of it: those in `docs/images` were made so.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use iop_tests::browser::Browser;
use iop_tests::chain::devnet_like;
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::json;

const SOON: Duration = Duration::from_secs(90);
/// Blocks of about 2^22 hashes: a tenth of a second on one core.
const QUICK: &str = "000003ff";
/// What a vandal calls its worker.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>";

/// Waits for a script to return true.
fn wait(browser: &Browser, what: &str, script: &str) {
    let seen = wait_for(SOON, || (browser.run(script) == true).then_some(()));
    assert!(seen.is_some(), "{what}: {}\n{:?}", browser.text("body"), browser.complaints());
}

fn no_complaints(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("IOP_PICTURES") {
        browser.picture(&PathBuf::from(folder).join(name)).unwrap();
    }
}

/// A connection on which this user is authorised.
fn join(pool: &Pool, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&pool.stratum).unwrap();
    let subscribe = json!({"id": 1, "method": "mining.subscribe", "params": []});
    let authorize = json!({"id": 2, "method": "mining.authorize", "params": [user, "x"]});
    stream.write_all(format!("{subscribe}\n{authorize}\n").as_bytes()).unwrap();
    let answer = BufReader::new(&stream).lines().map_while(Result::ok).find(|line| line.contains("\"id\":2"));
    assert!(answer.unwrap().contains("true"));
    stream
}

#[test]
fn the_dashboard_follows_the_pool_while_it_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::start().unwrap();
    let network = Network::file(dir.path(), &devnet_like("dashboard", QUICK, ""));
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    browser.open(&format!("http://{}/", pool.api));
    wait(&browser, "it mines", "return document.querySelector('#state').innerText === 'mining'");
    assert!(browser.text("#blocks").contains("No block has been found yet"));
    assert!(browser.text("#workers").contains("No worker has connected"));
    browser.run("window.stayed = true");

    let member = new_address(dir.path(), &network);
    let miner = start_miner(dir.path(), &pool.stratum, &format!("{member}.rig")).unwrap();
    let _vandal = join(&pool, &format!("{member}.{HOSTILE}"));
    wait(&browser, "blocks come", "return document.querySelectorAll('#blocks .row').length >= 5");
    wait(&browser, "payees come", "return document.querySelectorAll('#blocks details').length >= 5");
    wait(&browser, "a chart", "return document.querySelector('#pool-chart polyline')?.points.length > 0");
    wait(&browser, "both workers", "return document.querySelectorAll('#workers .row').length === 2");
    assert_eq!(browser.run("return window.stayed"), true, "the page was not loaded again");
    assert!(browser.text("#blocks").contains(&member), "whom the blocks pay");
    assert!(browser.text("#summary").contains("H/s"));
    assert!(browser.text("#shares").contains("accepted"));
    assert!(browser.text("#nodes").contains("gives work"));
    assert!(browser.text("#log").contains("shares in the log"));

    assert!(browser.text("#workers").contains(HOSTILE), "a name is text: {}", browser.text("#workers"));
    assert_eq!(browser.count("main img, main script"), 0);
    assert_eq!(browser.run("return document.title"), "IoP pool");

    assert_eq!(browser.count("#licenses .row"), 3);
    let widths =
        "return [...document.querySelectorAll('#licenses .bar > span')].map((bar) => bar.offsetWidth)";
    let status = pool.api("licenses");
    assert!(status.as_array().unwrap().iter().all(|license| license["cap"].is_u64()), "{status}");
    let bars = browser.run(widths);
    assert_eq!(bars.as_array().unwrap().len(), 3, "{bars}");
    assert!(bars.as_array().unwrap().iter().any(|width| width.as_u64() > Some(0)), "{bars}");

    browser.run("document.querySelector('#workers button').click()");
    wait(&browser, "the worker's chart", "return document.querySelector('#worker-chart polyline') !== null");
    assert_eq!(browser.text("#worker-name"), format!("{member}.rig"));

    browser.run(&format!("document.querySelector('#address').value = ' {member} '"));
    browser.run("document.querySelector('#search button').click()");
    wait(&browser, "the member's blocks", "return document.querySelectorAll('#member table tr').length > 3");
    assert!(browser.text("#member").starts_with(&member));
    assert!(browser.text("#member").contains("2 workers since the pool started"));
    let linked = browser.run("return location.href");
    assert!(linked.as_str().unwrap().contains(&format!("member={member}")), "{linked}");
    browser.open(&format!("http://{}/#member={member}", pool.api));
    browser.command("refresh", &json!({}));
    wait(&browser, "the link leads to it", "return document.querySelectorAll('#member table tr').length > 3");
    wait(&browser, "the chart is back", "return document.querySelector('#pool-chart polyline') !== null");
    no_complaints(&browser);
    picture(&browser, "dashboard.png");

    browser.screen(390, 844);
    browser.run("document.querySelectorAll('details').forEach((details) => { details.open = true })");
    let fits = "return [document.documentElement.scrollWidth, innerWidth]";
    wait(&browser, "the phone's width is taken", "return innerWidth === 390");
    assert_eq!(browser.run(fits), json!([390, 390]), "no scrolling to the side");
    picture(&browser, "dashboard-phone.png");
    let paper = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(paper);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.devtools("Emulation.setEmulatedMedia", &dark);
    assert_ne!(browser.run(paper), light, "a dark page for those who want one");
    picture(&browser, "dashboard-dark.png");
    no_complaints(&browser);

    miner.stop();
    node.program.stop();
    wait(&browser, "the node is missed", "return document.querySelector('#state').innerText === 'no node'");
    assert!(browser.text("#reason").contains("No node gives work"));
    browser.run("location.hash = 'member=nobody'");
    wait(
        &browser,
        "no such address",
        "return /no account here: /.test(document.querySelector('#member').innerText)",
    );
    pool.program.stop();
    wait(&browser, "silence is said", "return !document.querySelector('#silent').hidden");
    assert!(browser.text("#silent").contains("The pool has not answered since"));
    assert!(browser.count("#blocks .row") >= 5, "what was known stays");
}

#[test]
fn a_pool_without_a_node_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::start().unwrap();
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let pool = Pool::start(dir.path(), &Network::Named("devnet"), free_port(), &licenses).unwrap();
    browser.open(&format!("http://{}/", pool.api));
    wait(&browser, "it says so", "return document.querySelector('#state').innerText === 'no node'");
    assert_eq!(browser.text("#reason"), "No node has given work yet.");
    wait(&browser, "words for licenses", "return document.querySelector('#licenses').innerText !== ''");
    assert!(browser.text("#licenses").contains("not known yet"));
    assert!(browser.text("#nodes").contains("trouble"));
    wait(
        &browser,
        "words for the chart",
        "return /No share/.test(document.querySelector('#pool-chart').innerText)",
    );
    no_complaints(&browser);
}
