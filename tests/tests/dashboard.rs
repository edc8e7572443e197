//! The pool's dashboard in a real browser, with a real node, pool and miner behind it.
//!
//! `IOP_PICTURES=DIR` keeps screenshots.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use iop_tests::browser::Browser;
use iop_tests::chain::devnet_like;
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);
/// Blocks of about 2^22 hashes: a tenth of a second on one core.
const QUICK: &str = "000003ff";
/// A hostile worker name.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>";

/// Waits for a script to return true.
fn wait(browser: &Browser, what: &str, script: &str) {
    let seen = wait_for(SOON, || (eval(browser, script) == true).then_some(()));
    assert!(seen.is_some(), "{what}: {}\n{:?}", text(browser, "body"), browser.console());
}

fn eval(browser: &Browser, script: &str) -> Value {
    browser.eval(script).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// The visible text of the first element that a selector matches.
fn text(browser: &Browser, selector: &str) -> String {
    let text = eval(browser, &format!("return document.querySelector({selector:?}).innerText"));
    text.as_str().unwrap().to_owned()
}

fn count(browser: &Browser, selector: &str) -> u64 {
    eval(browser, &format!("return document.querySelectorAll({selector:?}).length")).as_u64().unwrap()
}

fn no_complaints(browser: &Browser) {
    assert_eq!(browser.console(), Ok(vec![]));
}

fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("IOP_PICTURES") {
        fs::write(PathBuf::from(folder).join(name), browser.picture().unwrap()).unwrap();
    }
}

/// A connection with this user authorized.
fn join(pool: &Pool, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&pool.stratum).unwrap();
    let subscribe = json!({"id": 1, "method": "mining.subscribe", "params": []});
    let authorize = json!({"id": 2, "method": "mining.authorize", "params": [user, "x"]});
    stream.write_all(format!("{subscribe}\n{authorize}\n").as_bytes()).unwrap();
    let answer = BufReader::new(&stream).lines().map_while(Result::ok).find(|line| line.contains("\"id\":2"));
    assert!(answer.unwrap().contains("true"));
    stream
}

/// Waits until a part of the page shows this text: each part loads its own data.
fn shows(browser: &Browser, place: &str, words: &str) {
    let has = format!("return document.querySelector('{place}').innerText.includes({})", json!(words));
    wait(browser, &format!("{place} shows {words}"), &has);
}

#[test]
fn the_dashboard_follows_the_pool_while_it_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::start().unwrap();
    let network = Network::file(dir.path(), &devnet_like("dashboard", QUICK, ""));
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    browser.open(&format!("http://{}/", pool.api)).unwrap();
    wait(&browser, "it mines", "return document.querySelector('#state').innerText === 'mining'");
    shows(&browser, "#blocks", "No block has been found yet");
    shows(&browser, "#workers", "No worker has connected");
    eval(&browser, "window.stayed = true");

    let member = new_address(dir.path(), &network);
    let miner = start_miner(dir.path(), &pool.stratum, &format!("{member}.rig")).unwrap();
    let _vandal = join(&pool, &format!("{member}.{HOSTILE}"));
    wait(&browser, "blocks come", "return document.querySelectorAll('#blocks .row').length >= 5");
    wait(&browser, "payees come", "return document.querySelectorAll('#blocks details').length >= 5");
    wait(&browser, "a chart", "return document.querySelector('#pool-chart polyline')?.points.length > 0");
    wait(&browser, "both workers", "return document.querySelectorAll('#workers .row').length === 2");
    assert_eq!(eval(&browser, "return window.stayed"), true, "the page was not loaded again");
    shows(&browser, "#blocks", &member);
    shows(&browser, "#summary", "H/s");
    shows(&browser, "#shares", "accepted");
    shows(&browser, "#nodes", "gives work");
    shows(&browser, "#log", "shares in the log");

    shows(&browser, "#workers", HOSTILE);
    assert_eq!(count(&browser, "main img, main script"), 0);
    assert_eq!(eval(&browser, "return document.title"), "IoP pool");

    assert_eq!(count(&browser, "#licenses .row"), 3);
    let widths =
        "return [...document.querySelectorAll('#licenses .bar > span')].map((bar) => bar.offsetWidth)";
    let status = pool.api("licenses");
    assert!(status.as_array().unwrap().iter().all(|license| license["cap"].is_u64()), "{status}");
    let bars = eval(&browser, widths);
    assert_eq!(bars.as_array().unwrap().len(), 3, "{bars}");
    assert!(bars.as_array().unwrap().iter().any(|width| width.as_u64() > Some(0)), "{bars}");

    eval(&browser, "document.querySelector('#workers button').click()");
    wait(&browser, "the worker's chart", "return document.querySelector('#worker-chart polyline') !== null");
    assert_eq!(text(&browser, "#worker-name"), format!("{member}.rig"));

    eval(&browser, &format!("document.querySelector('#address').value = ' {member} '"));
    eval(&browser, "document.querySelector('#search button').click()");
    wait(&browser, "the member's blocks", "return document.querySelectorAll('#member table tr').length > 3");
    shows(&browser, "#member", &member);
    shows(&browser, "#member", "2 workers since the pool started");
    shows(&browser, "#member table", "in the chain");
    shows(&browser, "#rules", "from 0.01");
    let linked = eval(&browser, "return location.href");
    assert!(linked.as_str().unwrap().contains(&format!("member={member}")), "{linked}");
    browser.open("about:blank").unwrap();
    browser.open(&format!("http://{}/#member={member}", pool.api)).unwrap();
    wait(&browser, "the link leads to it", "return document.querySelectorAll('#member table tr').length > 3");
    wait(&browser, "the chart is back", "return document.querySelector('#pool-chart polyline') !== null");
    no_complaints(&browser);
    picture(&browser, "dashboard.png");

    browser.screen(390, 844).unwrap();
    eval(&browser, "document.querySelectorAll('details').forEach((details) => { details.open = true })");
    let fits = "return [document.documentElement.scrollWidth, innerWidth]";
    wait(&browser, "the phone's width is taken", "return innerWidth === 390");
    assert_eq!(eval(&browser, fits), json!([390, 390]), "no scrolling to the side");
    picture(&browser, "dashboard-phone.png");
    let paper = "return getComputedStyle(document.body).backgroundColor";
    let light = eval(&browser, paper);
    browser.dark().unwrap();
    assert_ne!(eval(&browser, paper), light, "a dark page for those who want one");
    picture(&browser, "dashboard-dark.png");
    no_complaints(&browser);

    miner.stop();
    node.program.stop();
    wait(&browser, "the node is missed", "return document.querySelector('#state').innerText === 'no node'");
    shows(&browser, "#reason", "No node gives work");
    eval(&browser, "location.hash = 'member=nobody'");
    wait(
        &browser,
        "no such address",
        "return /no account here: /.test(document.querySelector('#member').innerText)",
    );
    pool.program.stop();
    wait(&browser, "silence is said", "return !document.querySelector('#silent').hidden");
    shows(&browser, "#silent", "The pool has not answered since");
    assert!(count(&browser, "#blocks .row") >= 5, "what was known stays");
}

#[test]
fn a_member_sees_that_a_block_which_does_not_pay_it_yet_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::start().unwrap();
    let network = Network::file(dir.path(), &devnet_like("carried", QUICK, ""));
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let node = Node::start(dir.path(), &network).unwrap();
    // More than a block's 50 coins: nobody is paid.
    let config = "payout = \"solo\"\nmin_payout = 12000000000\n";
    let pool = Pool::start_configured(dir.path(), &network, node.port, &licenses, config).unwrap();
    let member = new_address(dir.path(), &network);
    let miner = start_miner(dir.path(), &pool.stratum, &format!("{member}.rig")).unwrap();
    browser.open(&format!("http://{}/#member={member}", pool.api)).unwrap();
    shows(&browser, "#rules", "from 120");
    wait(&browser, "a block of the member's", "return document.querySelector('#member table') !== null");
    shows(&browser, "#member table", "carried over");
    no_complaints(&browser);
    miner.stop();
}

#[test]
fn a_pool_without_a_node_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::start().unwrap();
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let pool = Pool::start(dir.path(), &Network::Named("devnet"), free_port(), &licenses).unwrap();
    browser.open(&format!("http://{}/", pool.api)).unwrap();
    wait(&browser, "it says so", "return document.querySelector('#state').innerText === 'no node'");
    assert_eq!(text(&browser, "#reason"), "No node has given work yet.");
    wait(&browser, "words for licenses", "return document.querySelector('#licenses').innerText !== ''");
    shows(&browser, "#licenses", "not known yet");
    shows(&browser, "#nodes", "trouble");
    wait(
        &browser,
        "words for the chart",
        "return /No share/.test(document.querySelector('#pool-chart').innerText)",
    );
    no_complaints(&browser);
}
