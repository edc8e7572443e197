//! A real browser without a screen: Chromium, driven over WebDriver by its chromedriver.
//!
//! Both are Debian packages (`chromium`, `chromium-driver`); `scripts/setup` installs them. The profile is a folder of
//! its own that goes with the browser.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::program::{free_port, wait_for};

/// How long the driver may take until it answers, and the browser until it is there.
const START: Duration = Duration::from_secs(30);
/// Seconds that a command may take.
const TIMEOUT: u64 = 30;

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    /// Of the driver.
    url: String,
    /// Id of the driver's session; empty before there is one.
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// When Chromium or its driver is missing or does not start.
    pub fn start() -> io::Result<Self> {
        let profile = tempfile::tempdir()?;
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                let hint = "install Debian's chromium and chromium-driver (scripts/setup does)";
                io::Error::new(error.kind(), format!("chromedriver cannot be started: {error}; {hint}"))
            })?;
        let url = format!("http://127.0.0.1:{port}");
        let mut browser = Self { driver, url, session: String::new(), _profile: profile };
        let ready = wait_for(START, || browser.request("GET", "/status", &Value::Null).ok());
        ready.ok_or_else(|| io::Error::other("chromedriver does not answer"))?;
        let folder = browser._profile.path().display();
        let args = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            format!("--user-data-dir={folder}"),
        ]);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.request("POST", "/session", &wanted).map_err(io::Error::other)?;
        browser.session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        Ok(browser)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.url);
        let request = match method {
            "GET" => minreq::get(url),
            "DELETE" => minreq::delete(url),
            _ => minreq::post(url).with_body(body.to_string()),
        };
        let response = request.with_timeout(TIMEOUT).send().map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_slice(response.as_bytes()).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        match value["message"].as_str() {
            Some(message) if response.status_code != 200 => Err(message.to_owned()),
            _ => Ok(value),
        }
    }

    /// A command of the session, such as `url`.
    ///
    /// # Panics
    /// When the driver refuses it.
    pub fn command(&self, name: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{name}", self.session);
        let done = self.request("POST", &path, body);
        done.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A command of the DevTools protocol.
    ///
    /// # Panics
    /// When the browser refuses it.
    pub fn devtools(&self, name: &str, params: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": name, "params": params}))
    }

    /// Opens a page.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({"url": url}));
    }

    /// What a script's `return` gives. It runs as the page's own, so it must keep to the page's policy.
    ///
    /// # Panics
    /// When it throws.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text that is shown of the first element that a selector finds.
    ///
    /// # Panics
    /// When there is none.
    pub fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({selector:?}).innerText"));
        text.as_str().expect("an element has a text").to_owned()
    }

    /// How many elements a selector finds.
    ///
    /// # Panics
    /// When it is no selector.
    pub fn count(&self, selector: &str) -> u64 {
        let count = self.run(&format!("return document.querySelectorAll({selector:?}).length"));
        count.as_u64().expect("a length is a number")
    }

    /// Makes the window a screen of this many pixels.
    ///
    /// # Panics
    /// When the browser refuses it.
    pub fn screen(&self, width: u32, height: u32) {
        let phone = width < 600;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the page has logged since the last call: warnings and errors, the policy's refusals among them.
    ///
    /// # Panics
    /// When the driver does not tell.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("a log is a list").iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    /// Writes a picture of what the window shows, as PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// When the browser gives no picture.
    pub fn picture(&self, path: &Path) -> io::Result<()> {
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture has data"));
        std::fs::write(path, bytes.expect("the driver encodes what it sends"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser. If that fails, the driver's end does.
            let _ = self.request("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
